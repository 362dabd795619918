"""kombu's connection to a Redis-protocol broker, with one deadline for everything that it does."""

from __future__ import annotations

import socket
from typing import Any

import kombu
import redis
from kombu.transport import redis as stock

from notifier.broker.deadline import BoundedSocket, Deadline, InTurn, open_socket


class _Opens(redis.Connection):
    """Opens the socket. Comes after redis-py's TLS in the order of inheritance, which wraps this socket."""

    socket_timeout: float | None

    def __init__(self, *arguments: Any, deadline: Deadline, **options: Any) -> None:
        self._deadline = deadline
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]

    def _connect(self) -> Any:
        opened = open_socket((self.host, self.port), self._deadline.left())
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # The limit for the whole TLS handshake.
        opened.settimeout(max(0.01, self._deadline.remaining))
        return opened


class _Bounds(_Opens):
    def _connect(self) -> Any:
        bounded = BoundedSocket(super()._connect(), self._deadline)
        bounded.settimeout(self.socket_timeout)
        return bounded


class _TlsBounds(_Bounds, redis.SSLConnection, _Opens):
    """The order matters: the socket is opened, then TLS is added, then the bounds."""


class _Channel(stock.Channel):  # type: ignore[misc]  # kombu's types are skipped
    from_transport_options = (*stock.Channel.from_transport_options, "deadline")
    connection_class = _Bounds
    connection_class_ssl = _TlsBounds

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous)
        return parameters | {"deadline": self.deadline}


class _Transport(InTurn, stock.Transport):  # type: ignore[misc]
    Channel = _Channel


class BoundedRedisConnection(kombu.Connection):  # type: ignore[misc]
    """Its `transport_options` hold the `deadline`. `connect_timeout` is the limit for each host."""

    def get_transport_cls(self) -> type[Any]:
        found: type[Any] = super().get_transport_cls()
        return _Transport if found is stock.Transport else found
