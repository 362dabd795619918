"""Reads producers' queues on RabbitMQ.

The readers consume below kombu's `Message`, which decompresses and decodes by headers that anybody may set, and
acknowledges what it cannot decode. Here a message is bytes until the intake reads it.

A message may end the process, by a fault in a C library or by too much memory. RabbitMQ then counts a delivery for
every message that was in hand, and gives up on a message after `topology.DELIVERY_LIMIT` deliveries. So messages
that were delivered before are taken alone: at the start, and whenever such a message comes, nothing else is
requested until it is recorded and acknowledged. Then only the message that ends the process collects deliveries.
"""

from __future__ import annotations

import base64
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from threading import Event, Lock
from typing import Any

from kombu import Connection

from notifier.broker import topology
from notifier.broker.amqp_transport import (
    RAW_PROPERTIES,
    UnreadableProperties,
    body_size,
    raw_properties,
    read_properties,
)
from notifier.broker.server_certificate import certificate_problem
from notifier.config.logs import Outage, log, log_failure
from notifier.domain.errors import Fault, ServiceUnavailable
from notifier.domain.message import MAX_BODY_BYTES
from notifier.domain.statuses import Channel, Lane
from notifier.intake.batch import BATCH_SIZE, Handle, Received
from notifier.intake.rabbitmq_connection import HEARTBEAT_SECONDS, Pulse, connect
from notifier.intake.threads import run_together
from notifier.runtime.backoff import pause_seconds
from notifier.telemetry.liveness import LIVENESS

#: Maximum bytes in hand for each lane: no more is read before these are recorded.
BATCH_BYTES = 32 * 1024 * 1024
#: Unacknowledged messages for each queue: the next batch arrives while one is written.
PREFETCH = 2 * BATCH_SIZE
#: If the last batch had several messages, the next waits this long for more: a batch costs several commits,
#: whatever its size. Seconds.
LINGER_SECONDS = 0.02
#: Longest wait of a lane at the start until more urgent lanes are past what may end the process. Seconds.
TURN_SECONDS = 5.0


@dataclass(slots=True)
class _Delivery:
    tag: int
    received: Received


@dataclass(frozen=True, slots=True)
class _Caution:
    """Shared by the lanes of a process, so that only one message that may end it is in hand at a time."""

    lock: Lock = field(default_factory=Lock)
    #: Lane → set when it has no more such messages.
    past: dict[Lane, Event] = field(default_factory=lambda: {lane: Event() for lane in Lane})

    def wait_for_turn(self, lane: Lane) -> None:
        """More urgent lanes go first, so that a message that ends the process at once cannot block them."""
        for earlier in list(Lane)[: list(Lane).index(lane)]:
            self.past[earlier].wait(TURN_SECONDS)


class AmqpReader:
    """Reads with one thread and one connection for each lane, so that a one-time code never waits behind a
    campaign. A batch is whatever waits, up to `BATCH_SIZE`."""

    def __init__(self, url: str, *, heartbeat_seconds: int = HEARTBEAT_SECONDS) -> None:
        self._url = url
        self._heartbeat_seconds = heartbeat_seconds
        self._outage = Outage("intake.broker_away", "intake.broker_back")
        known = Connection(url)
        self._errors: tuple[type[Exception], ...] = (
            OSError,
            *known.connection_errors,
            *known.channel_errors,
        )

    def run(self, handle: Handle, stop: Event) -> None:
        caution = _Caution()
        run_together([partial(self._read_lane, lane, handle, stop, caution) for lane in Lane], stop)

    def _read_lane(self, lane: Lane, handle: Handle, stop: Event, caution: _Caution) -> None:
        failures = 0
        while not stop.is_set():
            LIVENESS.turned(_loop(lane))
            try:
                with connect(self._url, self._heartbeat_seconds) as connection, Pulse(connection) as pulse:
                    session = _Session(connection, pulse, lane, handle, stop, caution)
                    failures = 0
                    self._outage.is_over()
                    session.run()
            except Exception as error:
                # All messages in hand go back to their queue and come again.
                if isinstance(error, self._errors):
                    reason = certificate_problem(error, self._url) or "away"
                    self._outage.goes_on(error, reason=reason)
                else:
                    log_failure("intake.failed", error, lane=lane)
                stop.wait(pause_seconds(failures))
                failures += 1
        # No other lane must wait for a lane that has ended.
        caution.past[lane].set()
        LIVENESS.ended(_loop(lane))


class _Session:
    """One connection, from opening to closing."""

    def __init__(
        self, connection: Connection, pulse: Pulse, lane: Lane, handle: Handle, stop: Event, caution: _Caution
    ) -> None:
        self._connection = connection
        self._pulse = pulse
        self._lane = lane
        self._handle = handle
        self._stop = stop
        self._caution = caution
        self._waiting: deque[_Delivery] = deque()
        #: Messages in hand that were delivered before, to a reader that ended, maybe because of them.
        self._suspects: deque[_Delivery] = deque()
        #: Total size of the bodies in hand.
        self._bytes = 0
        #: Whether the last batch had several messages.
        self._is_busy = False
        self._channel = connection.channel()
        # Bodies stay bytes, whatever content_encoding says.
        self._channel.auto_decode = False
        topology.declare_for_producers(self._channel)
        self._channel.basic_qos(0, PREFETCH, False)
        log.info("intake.reading", broker="rabbitmq", lane=lane)

    def run(self) -> None:
        self._caution.wait_for_turn(self._lane)
        while not self._stop.is_set():
            for channel in Channel:
                self._take_suspects(channel)
            self._caution.past[self._lane].set()
            self._take_many()
            while self._suspects and not self._stop.is_set():
                with self._alone():
                    self._work_off(self._suspects, 1)

    def _take_suspects(self, channel: Channel) -> None:
        """Take the messages at the head of the queue that were delivered before, one at a time. RabbitMQ puts them
        first, so stop at the first new message."""
        queue = topology.notify_queue_name(channel, self._lane)
        is_suspect = True
        while is_suspect and not self._stop.is_set():
            with self._alone():
                message = self._channel.basic_get(queue)
                if message is None:
                    return
                delivery = _opened(message, channel, self._lane)
                is_suspect = delivery.received.redelivered
                self._keep(delivery, self._suspects)
                self._work_off(self._suspects, 1)

    def _take_many(self) -> None:
        """Take batches until a message comes that was delivered before; then finish what is in hand."""
        tags = [str(channel) for channel in Channel]
        for channel in Channel:
            queue = topology.notify_queue_name(channel, self._lane)
            # Without waiting for the broker's answer, which would come after all messages of the queue.
            self._channel.basic_consume(
                queue, consumer_tag=str(channel), callback=self._receiver(channel), nowait=True
            )
        while not self._stop.is_set() and not self._suspects:
            self._drain(0.0 if self._waiting else 1.0)
            if self._waiting:
                self._work_off(self._waiting, BATCH_SIZE)
        if self._stop.is_set():
            return  # what is still unacknowledged goes back when the connection closes
        for tag in tags:
            self._channel.basic_cancel(tag)
        while self._waiting and not self._stop.is_set():
            self._work_off(self._waiting, BATCH_SIZE)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        while not self._caution.lock.acquire(timeout=1):
            self._listen(0)
        try:
            yield
        finally:
            self._caution.lock.release()

    def _drain(self, wait_seconds: float) -> None:
        """Wait for a message, then take whatever else has arrived."""
        LIVENESS.turned(_loop(self._lane))
        try:
            self._connection.drain_events(timeout=wait_seconds)
            lingers_until = time.monotonic() + (LINGER_SECONDS if self._is_busy else 0)
            while len(self._waiting) < BATCH_SIZE and self._bytes < BATCH_BYTES:
                self._connection.drain_events(timeout=max(0, lingers_until - time.monotonic()))
        except TimeoutError:
            self._connection.heartbeat_check()
        self._is_busy = len(self._waiting) > 1

    def _listen(self, seconds: float) -> None:
        """Receive messages and heartbeats. Prefetch and `BATCH_BYTES` bound the messages in hand."""
        LIVENESS.turned(_loop(self._lane))
        if self._bytes >= BATCH_BYTES:
            with self._pulse.going():
                self._stop.wait(seconds)
            return
        until = time.monotonic() + seconds
        while not self._stop.is_set():
            try:
                self._connection.drain_events(timeout=max(0, min(0.2, until - time.monotonic())))
            except TimeoutError:
                self._connection.heartbeat_check()
            if time.monotonic() >= until or self._bytes >= BATCH_BYTES:
                return

    def _work_off(self, waiting: deque[_Delivery], size: int) -> None:
        """Record and acknowledge the oldest messages. While the database is away, wait and try again."""
        failures = 0
        while not self._stop.is_set():
            try:
                self._hand_over(waiting, size)
            except ServiceUnavailable:
                # Keep them: each return to the queue would count against the delivery limit. Prefetch bounds them.
                pause = pause_seconds(failures)
                failures += 1
                log.warning("intake.database_away", count=len(waiting), seconds=pause)
                self._listen(pause)
            else:
                return

    def _hand_over(self, waiting: deque[_Delivery], size: int) -> None:
        LIVENESS.turned(_loop(self._lane))
        batch = _beginning(waiting, size)
        try:
            with self._pulse.going():
                self._handle([delivery.received for delivery in batch])
        except ServiceUnavailable:
            # It may be recorded all the same: perhaps only the answer to the commit was lost.
            for delivery in batch:
                delivery.received = replace(delivery.received, redelivered=True)
            raise
        except Exception as error:
            log_failure("intake.failed", error, count=len(batch), lane=self._lane)
            if len(batch) > 1:
                for _ in batch:
                    self._hand_over(waiting, 1)
                return
            # It comes again at once, alone. After `DELIVERY_LIMIT` deliveries RabbitMQ gives up on it.
            self._channel.basic_reject(batch[0].tag, requeue=True)
        else:
            self._acknowledge(batch)
        for _ in batch:
            self._bytes -= len(waiting.popleft().received.body)

    def _acknowledge(self, batch: list[_Delivery]) -> None:
        if not self._suspects:
            # Tags rise by one in order of arrival, so one ack covers the batch.
            self._channel.basic_ack(batch[-1].tag, multiple=True)
            return
        for delivery in batch:
            self._channel.basic_ack(delivery.tag)

    def _receiver(self, channel: Channel) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            delivery = _opened(message, channel, self._lane)
            self._keep(delivery, self._suspects if delivery.received.redelivered else self._waiting)

        return receive

    def _keep(self, delivery: _Delivery, where: deque[_Delivery]) -> None:
        where.append(delivery)
        self._bytes += len(delivery.received.body)


def _loop(lane: Lane) -> str:
    return f"intake {lane}"


def _beginning(waiting: deque[_Delivery], size: int) -> list[_Delivery]:
    """The oldest messages, up to `size` of them and `BATCH_BYTES`."""
    batch: list[_Delivery] = []
    bytes_left = BATCH_BYTES
    for delivery in islice(waiting, size):
        batch.append(delivery)
        bytes_left -= len(delivery.received.body)
        if bytes_left <= 0:
            break
    return batch


def _opened(message: Any, channel: Channel, lane: Lane) -> _Delivery:
    """Never raises, whatever a message contains."""
    tag = message.delivery_info["delivery_tag"]
    body, size = message.body or b"", body_size(message)
    too_large = Fault("", "too_large", f"{size} bytes", f"Send at most {MAX_BODY_BYTES} bytes a message")
    received = Received(
        body,
        channel,
        lane,
        redelivered=bool(message.delivery_info.get("redelivered")),
        faults=(too_large,) if size > len(body) else (),
        size=size,
    )
    try:
        properties = read_properties(message)
    except UnreadableProperties as error:
        fix = "Send it as AMQP 0-9-1 requires; its stored headers have all of them, base64, as amqp_properties"
        kept = {RAW_PROPERTIES: base64.b64encode(raw_properties(message)).decode()}
        fault = Fault(error.field, "bad_properties", error.problem, fix)
        return _Delivery(tag, replace(received, headers=kept, faults=(*received.faults, fault)))
    return _Delivery(
        tag,
        replace(
            received,
            headers=properties.get("application_headers") or {},
            content_type=properties.get("content_type"),
            content_encoding=properties.get("content_encoding"),
            broker_user=properties.get("user_id"),
        ),
    )
