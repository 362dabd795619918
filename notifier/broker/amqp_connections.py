"""kombu's connections to RabbitMQ with our transports, for Celery and the intake."""

from __future__ import annotations

from typing import Any

import kombu
from kombu.connection import ConnectionPool, PooledConnection
from kombu.transport import pyamqp

from notifier.broker.amqp_transport import AmqpSslTransport, AmqpTransport


class AmqpBrokerConnection(kombu.Connection):  # type: ignore[misc]  # kombu's types are skipped
    """Uses our transports where kombu would use its own, also for further hosts of a URL and for its pool."""

    plain: type[Any] = AmqpTransport
    tls: type[Any] = AmqpSslTransport

    def get_transport_cls(self) -> type[Any]:
        found: type[Any] = super().get_transport_cls()
        return {pyamqp.Transport: self.plain, pyamqp.SSLTransport: self.tls}.get(found, found)

    def Pool(self, limit: int | None = None, **_: Any) -> ConnectionPool:  # noqa: N802 - kombu's name
        return _Pool(self, limit)


class _Pooled(PooledConnection, AmqpBrokerConnection):  # type: ignore[misc]
    """The connection that Celery publishes tasks with."""


class _Pool(ConnectionPool):  # type: ignore[misc]
    """Makes our connections. kombu's pool makes plain ones, whatever connection it was made from."""

    def new(self) -> _Pooled:
        return _Pooled(self, **dict(self.connection._info(resolve=False)))
