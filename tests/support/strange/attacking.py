"""The attack on a whole service, and the check afterwards: nothing is lost, and no process has changed."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import redis

from notifier import Client
from tests.support.brokers import amqp_connection
from tests.support.service import Service, running_service
from tests.support.strange import rabbitmq, valkey, values
from tests.waiting import wait_until

#: The record must contain everything within this: messages of a dead reader are put back after five seconds.
#: Seconds.
REST_SECONDS = 60.0

_BOOKS = """
SELECT (SELECT count(*) FROM notifications WHERE producer <> 'probe'),
       (SELECT count(*) FROM rejected_messages),
       (SELECT count(*) FROM events WHERE kind = 'duplicate')
"""


def attack(
    database_url: str, broker_url: str, folder: Path, *, count: int, seed: int, rest_seconds: float = REST_SECONDS
) -> dict[str, Any]:
    """Run the programs, send `count` strange messages mixed with good ones, and return the results."""
    rng = Random(seed)
    kind = valkey if broker_url.startswith("redis") else rabbitmq
    # Remote control is attacked as well.
    environment = {"NOTIFIER_WORKER_QUESTIONS": "true"}
    with running_service(database_url, broker_url, folder, environment=environment) as service:
        _deliver_one(service, broker_url)
        before = service.programs.pids
        begun = time.monotonic()
        attacker = kind.Attack(broker_url, rng)
        attacker.publish(count)
        attacker.close()
        published = sum(attacker.counts[name] for name in ("good", "odd", "left"))
        published_in = time.monotonic() - begun
        found: list[int] = []

        def is_recorded() -> bool:
            found[:] = _books(database_url)
            return sum(found) >= published and not any(_left(broker_url).values())

        try:
            wait_until(is_recorded, timeout=rest_seconds, every=0.2)
        except AssertionError:
            pass  # the figures show what is missing
        recorded_in = time.monotonic() - begun
        # Behind all of it, an ordinary message still arrives through every queue.
        _deliver_one(service, broker_url)
        accepted, rejected, duplicates = _books(database_url)
        return {
            "seed": seed,
            "sent": count,
            "kinds": dict(attacker.counts),
            "published": published,
            "accepted": accepted,
            "rejected": rejected,
            "duplicates": duplicates,
            "missing": published - accepted - rejected - duplicates,
            "left": {name: left for name, left in _left(broker_url).items() if left},
            "same_processes": service.programs.pids == before,
            "seconds": [round(published_in, 1), round(recorded_in, 1)],
        }


def is_right(figures: dict[str, Any]) -> bool:
    """Whether nothing is missing and no program has ended."""
    return not figures["missing"] and not figures["left"] and bool(figures["same_processes"])


def _deliver_one(service: Service, broker_url: str) -> None:
    """Send one message on each lane, through to the provider."""
    before = _sent(service)
    with Client(broker_url, producer="probe", timeout_seconds=30) as client:
        for lane in values.LANES:
            context = values.good(Random(0), "email")["context"]
            wait_until(lambda lane=lane, context=context: _send(client, lane, context), timeout=30)  # type: ignore[misc]
    wait_until(lambda: _sent(service) >= before + len(values.LANES), timeout=60, every=0.2)


def _send(client: Client, lane: str, context: dict[str, Any]) -> bool:
    try:
        return bool(client.send("order_shipped", "probe@example.com", lane=lane, context=context))
    except Exception:
        return False  # for a moment, a key of another type has the queue's name


def _sent(service: Service) -> int:
    return sum(mail.rcpt_to == ("probe@example.com",) for mail in service.mail.messages)


def _books(database_url: str) -> list[int]:
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        return [int(value) for value in connection.execute(_BOOKS).fetchone() or ()]


def _left(broker_url: str) -> dict[str, int]:
    """Queue → number of messages that still wait in it."""
    names = [*(f"notify.{key}" for key in values.KEYS), *values.WORK_QUEUES[:6]]
    if broker_url.startswith("redis"):
        with redis.Redis.from_url(broker_url) as client:
            lists = [key for key in client.scan_iter(count=1000) if client.type(key) == b"list"]
            ours = [key for key in lists if key.startswith((b"notify.", b"deliver.email", b"deliver.sms"))]
            hands = [
                key
                for key in lists
                if key.startswith((b"notifier:taken:", b"notifier:suspect:", b"notifier:again:notify"))
            ]
            return {repr(key): int(client.llen(key)) for key in (*ours, *hands) if b"nowhere" not in key}
    with amqp_connection(broker_url) as connection:
        channel = connection.channel()
        return {name: channel.queue_declare(name, passive=True).message_count for name in (*names, "notify.dead")}
