"""The names of exchanges and queues, and how they are declared. No other module knows them.

Producers write to the exchange `notify` (routing key `<channel>.<lane>`), and the intake reads its queues. Celery
reads only `deliver.*`, and only we write there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from kombu import Exchange, Queue

from notifier.broker.url_parameters import with_verified_certificate
from notifier.domain.errors import ConfigurationError
from notifier.domain.statuses import Channel, Lane

#: The exchange that producers publish to.
NOTIFY = Exchange("notify", type="topic", durable=True)
#: Messages that the broker gave up on, because they are over the delivery limit.
DEAD = Exchange("notify.dead", type="fanout", durable=True)
#: Tasks for Celery, published only by us.
DELIVER = Exchange("deliver", type="direct", durable=True)

#: A message that was returned this often (once for each intake that died with it in hand) is dead-lettered. Quorum
#: queues have no limit in RabbitMQ 3.x unless one is set, and 20 in RabbitMQ 4. A restart of the intake counts
#: once for all messages that it had prefetched; after that each is taken alone.
DELIVERY_LIMIT = 50
#: The same for a Redis-protocol broker. It has no dead letters, so the message is rejected then.
TAKINGS_LIMIT = 5

#: Beat's ticks and nightly work; every worker with upkeep reads them.
MAINTENANCE = "deliver.maintenance"
#: Ids of status callbacks, for the workers that call producers' endpoints.
CALLBACKS = "callbacks"
#: The queue behind the exchange `DEAD`.
DEAD_QUEUE = "notify.dead"

#: Exchanges of the workers: for tasks, for Celery's remote control, for its events.
WORK_EXCHANGES = (DELIVER.name, "celery.pidbox", "reply.celery.pidbox", "celeryev")

#: AMQP 0-9-1 reply code for a mandatory message that no queue took.
NO_ROUTE = 312

#: Path of a Redis-protocol URL: a number, or none.
_REDIS_PATH = re.compile(r"/?\d*/?", re.ASCII)

_QUORUM: Mapping[str, Any] = {"x-queue-type": "quorum"}


def routing_key(channel: Channel, lane: Lane) -> str:
    return f"{channel}.{lane}"


def notify_queue_name(channel: Channel, lane: Lane) -> str:
    """The queue in which producers' messages of this channel and lane wait."""
    return f"notify.{routing_key(channel, lane)}"


def deliver_queue_name(channel: Channel, lane: Lane) -> str:
    return f"deliver.{routing_key(channel, lane)}"


def pairs(channels: tuple[Channel, ...] = tuple(Channel)) -> Iterator[tuple[Channel, Lane]]:
    """Every channel with every lane, urgent first."""
    return ((channel, lane) for lane in Lane for channel in channels)


def notify_queue(channel: Channel, lane: Lane) -> Queue:
    """A quorum queue: replicated and on disk. At-least-once dead-lettering needs reject-publish as overflow."""
    return Queue(
        notify_queue_name(channel, lane),
        exchange=NOTIFY,
        routing_key=routing_key(channel, lane),
        durable=True,
        queue_arguments={
            **_QUORUM,
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": DEAD.name,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )


def dead_queue() -> Queue:
    # Each look at a letter counts as a delivery, and at the limit the letter would be dropped for good.
    arguments = {**_QUORUM, "x-delivery-limit": 1_000_000}
    return Queue(DEAD_QUEUE, exchange=DEAD, durable=True, queue_arguments=arguments)


def deliver_queue(channel: Channel, lane: Lane) -> Queue:
    """Durable but not quorum: it carries ids, which are dispatched again from Postgres if lost."""
    name = deliver_queue_name(channel, lane)
    return Queue(name, exchange=DELIVER, routing_key=name, durable=True)


def maintenance_queue() -> Queue:
    return Queue(MAINTENANCE, exchange=DELIVER, routing_key=MAINTENANCE, durable=True)


def callbacks_queue() -> Queue:
    """Like `deliver_queue`: what is lost here is dispatched again."""
    return Queue(CALLBACKS, exchange=DELIVER, routing_key=CALLBACKS, durable=True)


def work_queues() -> list[Queue]:
    """The queues that workers read."""
    return [*(deliver_queue(*pair) for pair in pairs()), callbacks_queue(), maintenance_queue()]


def declare_for_producers(channel: Any) -> None:
    """Declare every queue that a published message can reach, on an open kombu channel. May be repeated."""
    dead_queue().bind(channel).declare()
    for pair in pairs():
        notify_queue(*pair).bind(channel).declare()


def is_redis(broker_url: str) -> bool:
    """Whether the URL is of a Redis-protocol broker (Redis, Valkey). Otherwise it is AMQP.

    Raises:
        ConfigurationError: the scheme is another one.
    """
    scheme = urlsplit(broker_url).scheme.lower()
    if scheme in ("redis", "rediss"):
        return True
    if scheme in ("amqp", "amqps", "pyamqp"):
        return False
    raise ConfigurationError(
        f"the broker URL {f'begins with {scheme}' if scheme else 'has no scheme'}: use amqp:// (RabbitMQ) or "
        "redis:// (Redis, Valkey)",
        setting="NOTIFIER_BROKER_URL",
    )


def verified(broker_url: str) -> str:
    """The URL, checked. For rediss:// it asks for verification of the server's certificate, unless it says
    otherwise. For amqps:// our transports verify it (`server_certificate`).

    Raises:
        ConfigurationError: it is not a URL of a supported broker, or has an unknown parameter.
    """
    _check(broker_url)
    # A host after the first may come without a scheme; then everything of the first one's applies to it.
    hosts = broker_url.split(";")
    return ";".join(with_verified_certificate(host) if "://" in host else host for host in hosts)


def _check(broker_url: object) -> None:
    """Find what kombu would find later, in errors of its own, or not at all."""
    if not isinstance(broker_url, str):
        problem = f"the broker URL is of type {type(broker_url).__name__}, not text"
        raise ConfigurationError(f"{problem}: give one as amqp://broker/", setting="NOTIFIER_BROKER_URL")
    try:
        hosts = [urlsplit(host if "://" in host else f"//{host}") for host in broker_url.split(";")]
        for host in hosts:
            _ = host.port
            if "@" in host.query:
                raise ValueError("a ? in its password")
    except ValueError:
        raise ConfigurationError(
            "the broker URL is not a URL: correct its host and port, and write special characters of its password "
            "as %2F; it looks like amqp://user:password@broker.example.com:5672//",
            setting="NOTIFIER_BROKER_URL",
        ) from None
    if any(host.scheme and is_redis(host.geturl()) != is_redis(broker_url) for host in hosts[1:]):
        raise ConfigurationError(
            "the broker URL names RabbitMQ and Redis: name hosts of one kind, separated by ;",
            setting="NOTIFIER_BROKER_URL",
        )
    if is_redis(broker_url) and not _REDIS_PATH.fullmatch(hosts[0].path):
        raise ConfigurationError(
            "the broker URL names its database by something other than a number: it looks like "
            "redis://broker.example.com:6379/0",
            setting="NOTIFIER_BROKER_URL",
        )


def transport_options(broker_url: str, *, timeout_seconds: float = 5.0) -> dict[str, Any]:
    """kombu's transport options, with a deadline on everything and, on RabbitMQ, publisher confirms. Without these
    a publish can wait for ever: behind a memory alarm, or on a half-open connection."""
    if is_redis(broker_url):
        return {
            "socket_timeout": timeout_seconds * 2,
            "socket_connect_timeout": timeout_seconds,
            "socket_keepalive": True,
            "health_check_interval": 25,
            # No task takes longer. An unacknowledged one comes back after this.
            "visibility_timeout": 600,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
        }
    return {
        "confirm_publish": True,
        "connect_timeout": timeout_seconds,
        "read_timeout": timeout_seconds * 2,
        "write_timeout": timeout_seconds * 2,
        "client_properties": {"connection_name": "notifier"},
    }
