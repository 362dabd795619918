"""kombu's connection to RabbitMQ, with one deadline for everything that it does."""

from __future__ import annotations

from typing import Any

import kombu
from amqp import transport as sockets
from kombu.transport import pyamqp

from notifier.broker.deadline import BoundedSocket, Deadline, InTurn, open_socket
from notifier.broker.server_certificate import ChecksName

_READ_BYTES = 65536


class _Bounds:
    """What py-amqp's two kinds of transport have in common. Comes before them in the order of inheritance."""

    connect_timeout: float | None
    sock: Any

    def __init__(self, *arguments: Any, deadline: Deadline, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline = deadline

    def _connect(self, host: str, port: int, _timeout: float | None) -> None:
        self.sock = open_socket((host, port), self._deadline.left())

    def _bound(self) -> None:
        self.sock = BoundedSocket(self.sock, self._deadline)
        # Its own timeout is the limit of the handshake, or none.
        self.sock.settimeout(None)
        self._quick_recv = self._read_what_is_there
        self._write = self.sock.sendall

    def _read_what_is_there(self, _: int) -> bytes:
        """One read for a frame instead of three: py-amqp keeps the bytes that it did not ask for."""
        found: bytes = self.sock.recv(_READ_BYTES)
        return found


class _TcpTransport(_Bounds, sockets.TCPTransport):  # type: ignore[misc]  # amqp has no types
    def _setup_transport(self) -> None:
        super()._setup_transport()
        self._bound()


class _TlsTransport(_Bounds, sockets.SSLTransport):  # type: ignore[misc]
    def _setup_transport(self) -> None:
        # The limit for the whole handshake.
        self.connect_timeout = self._deadline.left()
        super()._setup_transport()
        self._bound()

    def _shutdown_transport(self) -> None:
        """Do not wait for the goodbye of TLS: AMQP's goodbye came before, or the connection is given up."""


class BoundedConnection(pyamqp.Connection):  # type: ignore[misc]  # kombu's types are skipped
    """py-amqp's connection with a deadline. Can also come before another kind in the order of inheritance."""

    def __init__(self, *arguments: Any, deadline: Deadline, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline = deadline

    def Transport(self, host: str, _timeout: float, ssl: Any = False, *_: Any, **options: Any) -> Any:  # noqa: N802
        """Ignores py-amqp's other timeouts, because the deadline covers them."""
        kind = _TlsTransport if ssl else _TcpTransport
        return kind(host, ssl=ssl, deadline=self._deadline, socket_settings=options["socket_settings"])


class BoundedTransport(InTurn, pyamqp.Transport):  # type: ignore[misc]
    Connection = BoundedConnection


class BoundedSslTransport(InTurn, ChecksName, pyamqp.SSLTransport):  # type: ignore[misc]
    Connection = BoundedConnection


class BoundedAmqpConnection(kombu.Connection):  # type: ignore[misc]
    """Its `transport_options` hold the `deadline`. `connect_timeout` is the limit for each host."""

    plain: type[Any] = BoundedTransport
    tls: type[Any] = BoundedSslTransport

    def get_transport_cls(self) -> type[Any]:
        found: type[Any] = super().get_transport_cls()
        return {pyamqp.Transport: self.plain, pyamqp.SSLTransport: self.tls}.get(found, found)
