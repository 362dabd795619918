"""A connection to either kind of broker that keeps a deadline over everything that it does."""

from __future__ import annotations

from typing import Any

from kombu import Connection

from notifier.broker import topology
from notifier.broker.bounded_amqp import BoundedAmqpConnection
from notifier.broker.deadline import Deadline


def bounded_connection(
    url: str,
    deadline: Deadline,
    *,
    timeout_seconds: float,
    amqp: type[Connection] = BoundedAmqpConnection,
    **options: Any,
) -> Connection:
    """A connection that is not open yet. `timeout_seconds`: the limit for connecting to each host of the URL.
    `amqp`: the kind of connection to RabbitMQ. `options`: further transport options.

    Raises:
        ConfigurationError: the URL is not of a supported broker.
    """
    return _kind(url, amqp)(
        topology.verified(url),
        connect_timeout=timeout_seconds,
        transport_options={
            **topology.transport_options(url, timeout_seconds=timeout_seconds),
            "deadline": deadline,
            **options,
        },
    )


def _kind(url: str, amqp: type[Connection]) -> type[Connection]:
    if not topology.is_redis(url):
        return amqp
    # Imported here, so that producers on RabbitMQ start without redis-py.
    from notifier.broker.bounded_redis import BoundedRedisConnection

    return BoundedRedisConnection
