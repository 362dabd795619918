"""Which versions of Python and of the servers the other tests ran on, as the servers say it themselves.

`make matrix` reads them from the report of a run."""

from __future__ import annotations

import platform
from collections.abc import Callable

import psycopg
import redis

from tests.provisioning.rabbitmq import AmqpServer
from tests.provisioning.services import RedisServer
from tests.support.brokers import amqp_connection

#: The oldest of each that the documentation names.
OLDEST = {"Python": (3, 11), "PostgreSQL": (15,), "RabbitMQ": (3, 10), "Redis": (6, 2), "Valkey": (7, 2)}


def test_no_server_is_older_than_the_oldest_that_is_supported(
    postgres_url: str,
    amqp_server: AmqpServer,
    redis_server: RedisServer,
    record_property: Callable[[str, object], None],
) -> None:
    found = {
        "Python": platform.python_version(),
        "PostgreSQL": postgres_version(postgres_url),
        "RabbitMQ": rabbitmq_version(amqp_server.url),
        **redis_version(redis_server.url),
    }
    for name, version in found.items():
        record_property(name, version)
        assert tuple(map(int, version.split(".")[:2])) >= OLDEST[name], f"{name} {version}"


def postgres_version(url: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    assert row is not None
    return str(row[0]).partition(" ")[0]


def rabbitmq_version(url: str) -> str:
    with amqp_connection(url) as connection:
        return str(connection.server_properties["version"])


def redis_version(url: str) -> dict[str, str]:
    """Valkey says that it is a Redis, for old clients, and its own name and version beside that."""
    with redis.Redis.from_url(url) as client:
        answer = client.info("server")
    if "valkey_version" in answer:
        return {"Valkey": answer["valkey_version"]}
    return {"Redis": answer["redis_version"]}
