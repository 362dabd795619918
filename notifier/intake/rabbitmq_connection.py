"""The intake's connections to RabbitMQ: fast reads, cut bodies, and heartbeats during long writes."""

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

#: Read from the socket at once: several messages. Bytes.
READ_BYTES = 4096
#: Heartbeat interval: without a sign of life from the broker the connection counts as dead. Seconds.
HEARTBEAT_SECONDS = 20
#: Time for the broker to answer. Seconds.
GOODBYE_SECONDS = 5.0


class _Tcp(TCPTransport):  # type: ignore[misc]  # amqp has no types
    """Reads whatever has arrived. The original calls the socket for each of the nine parts of a message, and
    releases the interpreter each time. Over TLS it does not, so that is unchanged."""

    def _setup_transport(self) -> None:
        super()._setup_transport()
        receive = self.sock.recv
        # It keeps what it did not need yet.
        self._quick_recv = lambda wanted: receive(max(wanted, READ_BYTES))


class _Connection(AmqpConnection):
    cut = Cut(above=MAX_BODY_BYTES, kept=KEPT_BODY_BYTES)


class _TcpConnection(_Connection):
    # What amqp calls to make the transport.
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
    """kombu's, with a socket that is read in large pieces."""

    Connection = _TcpConnection


class TlsTransport(AmqpSslTransport):
    """The same bounds, read as the library does."""

    Connection = _Connection


class _BrokerConnection(AmqpBrokerConnection):
    plain = TcpTransport
    tls = TlsTransport


def connect(url: str, heartbeat_seconds: int) -> Connection:
    """An open connection. The read timeout is for answers, such as that to a goodbye: waiting for messages has its
    own, and heartbeats find a dead peer."""
    options = topology.transport_options(url) | {"read_timeout": GOODBYE_SECONDS}
    connection = _BrokerConnection(url, heartbeat=heartbeat_seconds, transport_options=options)
    connection.connect()
    return connection


class Pulse:
    """Sends heartbeats to RabbitMQ while a batch is being recorded, however long that takes: without them it
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
        """While nothing is read. py-amqp writes one frame at a time, whichever thread writes."""
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
                    return  # the connection is lost, which its own thread finds out
