"""Reads producers' queues on RabbitMQ.

It consumes below kombu's `Message`: that one decompresses and decodes by headers that anybody may set, and acks
what it cannot decode. Here a message is bytes until the intake looks at it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

from amqp.transport import TCPTransport
from kombu import Connection
from kombu.transport import pyamqp

from notifier import topology
from notifier.errors import ServiceUnavailable
from notifier.intake.accepting import BATCH_SIZE, Received
from notifier.intake.reading import PAUSES, Handle, run_together
from notifier.status import Channel, Lane
from notifier.telemetry import log

#: Unacknowledged messages in hand, of each queue: one batch being written while the next one arrives.
PREFETCH = 2 * BATCH_SIZE
#: While messages come faster than one at a time, a batch waits so long for more of them: each costs several
#: commits on its way, whatever its size. Seconds.
LINGER_SECONDS = 0.02
#: The socket is asked for so much at once: several messages. Bytes.
READ_BYTES = 4096
#: Without traffic the broker shows a sign of life this often, or the connection counts as dead. Seconds.
HEARTBEAT_SECONDS = 20


class _Tcp(TCPTransport):  # type: ignore[misc]  # amqp has no types
    """Takes in whatever has come. The original asks the socket for each of the nine parts of a message, and lets
    go of the interpreter each time. Over TLS it does not, so that is left as it is."""

    def _setup_transport(self) -> None:
        super()._setup_transport()
        receive = self.sock.recv
        # It keeps what was more than it wanted.
        self._quick_recv = lambda wanted: receive(max(wanted, READ_BYTES))


class _TcpConnection(pyamqp.Connection):  # type: ignore[misc]
    # What amqp calls to make the transport.
    def Transport(  # noqa: N802
        self,
        host: str,
        connect_timeout: float,
        ssl: Any = False,
        read_timeout: float | None = None,
        write_timeout: float | None = None,
        **options: Any,
    ) -> Any:
        timeouts = {"read_timeout": read_timeout, "write_timeout": write_timeout}
        if ssl:
            # A parameter of the URL can ask for it, too.
            return super().Transport(host, connect_timeout, ssl=ssl, **timeouts, **options)
        return _Tcp(host, connect_timeout=connect_timeout, **timeouts, **options)


class TcpTransport(pyamqp.Transport):  # type: ignore[misc]
    """kombu's, with a socket that is read in large pieces."""

    Connection = _TcpConnection


class AmqpReader:
    """A thread and a connection for each lane, so that a one-time code never waits behind a campaign.

    Batches are whatever waits, up to `BATCH_SIZE`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        known = Connection(url)
        self._errors: tuple[type[Exception], ...] = (
            OSError,
            *known.connection_errors,
            *known.channel_errors,
        )

    def run(self, handle: Handle, stop: Event) -> None:
        """See `Reader.run`."""
        run_together([partial(self._read_lane, lane, handle, stop) for lane in Lane], stop)

    def _read_lane(self, lane: Lane, handle: Handle, stop: Event) -> None:
        failures = 0
        while not stop.is_set():
            try:
                with self._connect() as connection:
                    session = _Session(connection, lane, handle, stop)
                    failures = 0
                    session.run()
            except self._errors as error:
                # Everything that was in hand goes back to its queue and comes again.
                log.warning("intake.broker_away", lane=lane, error=type(error).__name__)
                stop.wait(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1

    def _connect(self) -> Connection:
        # No read timeout: an idle queue is normal, heartbeats find the dead peer.
        options = topology.transport_options(self._url) | {"read_timeout": None}
        transport = f"{__name__}:{TcpTransport.__name__}" if self._url.startswith("amqp://") else None
        connection = Connection(
            self._url, transport=transport, heartbeat=HEARTBEAT_SECONDS, transport_options=options
        )
        connection.connect()
        return connection


class _Session:
    """One life of a connection."""

    def __init__(self, connection: Connection, lane: Lane, handle: Handle, stop: Event) -> None:
        self._connection = connection
        self._handle = handle
        self._stop = stop
        self._waiting: deque[tuple[int, Received]] = deque()
        #: Whether more than one message was there the last time.
        self._is_busy = False
        self._channel = connection.channel()
        # Bodies stay bytes, whatever content_encoding says.
        self._channel.auto_decode = False
        topology.declare_for_producers(self._channel)
        self._channel.basic_qos(0, PREFETCH, False)
        self._tags = [
            self._channel.basic_consume(
                topology.notify_queue_name(channel, lane), callback=self._receiver(channel, lane)
            )
            for channel in Channel
        ]
        log.info("intake.reading", broker="rabbitmq", lane=lane)

    def run(self) -> None:
        failures = 0
        retry_at = 0.0
        while not self._stop.is_set():
            held_back = time.monotonic() < retry_at
            self._drain((0.2 if held_back else 0.0) if self._waiting else 1.0)
            if held_back or not self._waiting:
                continue
            try:
                self._work_off()
                failures = 0
            except ServiceUnavailable:
                # Kept, not given back: each return would count against the delivery limit. Prefetch bounds it.
                pause = PAUSES[min(failures, len(PAUSES) - 1)]
                failures += 1
                retry_at = time.monotonic() + pause
                log.warning("intake.database_away", count=len(self._waiting), seconds=pause)
        self._end()

    def _drain(self, wait_seconds: float) -> None:
        """Wait for a message, then take in what else has arrived."""
        try:
            self._connection.drain_events(timeout=wait_seconds)
            lingers_until = time.monotonic() + (LINGER_SECONDS if self._is_busy else 0)
            while len(self._waiting) < BATCH_SIZE:
                self._connection.drain_events(timeout=max(0, lingers_until - time.monotonic()))
        except TimeoutError:
            self._connection.heartbeat_check()
        self._is_busy = len(self._waiting) > 1

    def _work_off(self) -> None:
        batch = [self._waiting[index] for index in range(min(BATCH_SIZE, len(self._waiting)))]
        try:
            self._handle([received for _, received in batch])
        except ServiceUnavailable:
            # It may be in the record all the same: the answer to the commit was lost, maybe.
            for index, (tag, received) in enumerate(batch):
                self._waiting[index] = tag, replace(received, redelivered=True)
            raise
        # Tags rise by one in the order of arrival, so one ack covers the batch.
        self._channel.basic_ack(batch[-1][0], multiple=True)
        for _ in batch:
            self._waiting.popleft()

    def _end(self) -> None:
        """Stop the deliveries; what is still unacknowledged goes back when the connection closes."""
        for tag in self._tags:
            self._channel.basic_cancel(tag)

    def _receiver(self, channel: Channel, lane: Lane) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            properties = message.properties
            received = Received(
                body=message.body or b"",
                channel=channel,
                lane=lane,
                headers=_headers(properties.get("application_headers")),
                content_type=_word(properties.get("content_type")),
                content_encoding=_word(properties.get("content_encoding")),
                broker_user=_word(properties.get("user_id")),
                redelivered=bool(message.delivery_info.get("redelivered")),
            )
            self._waiting.append((message.delivery_info["delivery_tag"], received))

        return receive


def _headers(headers: Any) -> dict[str, Any]:
    return headers if isinstance(headers, dict) else {}


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None
