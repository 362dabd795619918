"""Finds messages that no intake reads, in other databases of a Redis-protocol broker, where a wrong URL put them.

RabbitMQ refuses a wrong virtual host. On Redis a database of any number exists, and takes what it is given.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import redis

from notifier.broker import topology

#: Maximum number of other databases that are looked into.
_MAX_DATABASES = 64
#: Deadline of connecting, and of each answer. Seconds.
_TIMEOUT_SECONDS = 5.0


def stray_messages(broker_url: str) -> dict[int, int]:
    """Number of each other database in which producers' messages wait and no intake gives a sign of life → how
    many wait. Also empty if the broker's user may not look.
    """
    parts = urlsplit(topology.verified(broker_url))
    own = int(parts.path.strip("/") or 0)
    found = {}
    try:
        with _client(parts.geturl()) as client:
            numbers = [int(name.removeprefix("db")) for name in client.info("keyspace")]
        for number in sorted(set(numbers) - {own})[:_MAX_DATABASES]:
            with _client(parts._replace(path=f"/{number}").geturl()) as client:
                waiting = sum(client.llen(topology.notify_queue_name(*pair)) for pair in topology.pairs())
                if waiting and next(client.scan_iter("notifier:reader:*", count=1000), None) is None:
                    found[number] = waiting
    except redis.RedisError:
        return found
    return found


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url, socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS, protocol=2
    )
