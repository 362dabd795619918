"""The intake's connections to RabbitMQ: fast reads, truncated bodies, and heartbeats during long writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, Self

from amqp.transport import TCPTransport
from kombu import Connection

from notifier.broker import topology
from notifier.broker.amqp_connections import AmqpBrokerConnection
from notifier.broker.amqp_transport import AmqpConnection, AmqpSslTransport, AmqpTransport, Cut
from notifier.domain.message import MAX_BODY_BYTES
from notifier.store.acceptance import KEPT_BODY_BYTES

#: Bytes to read from the socket at once: several messages.
READ_BYTES = 4096
#: Heartbeat interval; a broker that gives no sign of life counts as dead. Seconds.
HEARTBEAT_SECONDS = 20
#: Time for the broker to answer a request, such as a goodbye. Seconds.
GOODBYE_SECONDS = 5.0


class _Tcp(TCPTransport):  # type: ignore[misc]  # amqp has no types
    """Reads whatever has arrived. The original reads from the socket for each of the nine parts of a message, and
    releases the interpreter's lock each time. Over TLS the original does not, so there nothing is changed."""

    def _setup_transport(self) -> None:
        super()._setup_transport()
        receive = self.sock.recv
        # The transport keeps the bytes that it did not need yet.
        self._quick_recv = lambda wanted: receive(max(wanted, READ_BYTES))


class _Connection(AmqpConnection):
    cut = Cut(above=MAX_BODY_BYTES, kept=KEPT_BODY_BYTES)


class _TcpConnection(_Connection):
    # py-amqp calls this to make the transport.
    def Transport(  # noqa: N802
        self,
        host: str,
        connect_timeout: float,
        _ssl: bool = False,
        read_timeout: float | None = None,
        write_timeout: float | None = None,
        **options: Any,
    ) -> Any:
        timeouts = {"read_timeout": read_timeout, "write_timeout": write_timeout}
        return _Tcp(host, connect_timeout=connect_timeout, **timeouts, **options)


class TcpTransport(AmqpTransport):
    """kombu's transport, with a socket that is read in large pieces."""

    Connection = _TcpConnection


class TlsTransport(AmqpSslTransport):
    """kombu's transport over TLS: the same bounds, read in the library's own way."""

    Connection = _Connection


class _BrokerConnection(AmqpBrokerConnection):
    plain = TcpTransport
    tls = TlsTransport


def connect(url: str, heartbeat_seconds: int) -> Connection:
    """An open connection. The read timeout is for answers, such as the one to a goodbye. Waiting for messages has
    its own timeout, and heartbeats detect a dead peer."""
    options = topology.transport_options(url) | {"read_timeout": GOODBYE_SECONDS}
    connection = _BrokerConnection(url, heartbeat=heartbeat_seconds, transport_options=options)
    connection.connect()
    return connection


class Pulse:
    """Sends heartbeats to RabbitMQ while a batch is being recorded, however long that takes. Without them RabbitMQ
    closes the connection, and the batch comes again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection.connection
        self._is_needed = Event()
        self._is_over = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @contextmanager
    def going(self) -> Iterator[None]:
        """Send heartbeats while the caller reads nothing. py-amqp writes one frame at a time, in any thread."""
        self._is_needed.set()
        try:
            yield
        finally:
            self._is_needed.clear()

    def _run(self) -> None:
        seconds = self._connection.heartbeat / 3
        while seconds and not self._is_over.wait(seconds):
            if self._is_needed.is_set():
                try:
                    self._connection.send_heartbeat()
                except Exception:
                    return  # the connection is lost; the thread that reads it notices
