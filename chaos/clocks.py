"""Faults of wall clocks: months wrong, and stepped while the programs work; and a producer with such a clock."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from uuid import UUID

import amqp
import psycopg

from chaos.load import PRODUCER
from chaos.world import Setup, Surroundings, World
from notifier.broker.topology import notify_queue_name
from notifier.dev.embedded.rabbitmq import amqp_connection
from notifier.domain.message import new_id, time_of_id
from notifier.domain.statuses import Channel, Lane
from tests.support.clocks import Clocks, find_faketime

#: One program of each kind. The others keep the right time, so they disagree.
_STEPPED = ("intake-1", "worker-1", "beat-1", "relay-1")
_HOURS = (24 * 150, -24 * 400, 0)
_MONTHS_SECONDS = 24 * 150 * 3600
_EACH = 30
#: How close the time in an id that the service made must be. Seconds.
_NEAR_SECONDS = 10.0
_DOMAIN = "clocks.example.com"


def _begin(world: World, _stack: ExitStack) -> Surroundings:
    library = find_faketime()
    assert library is not None
    world.clocks = clocks = Clocks(library, world.folder / "clocks")
    return Surroundings(own={name: clocks.environment(name) for name in _STEPPED})


STEPPED_CLOCKS = Setup(
    "with clocks of their own",
    begin=_begin,
    lacks=lambda: "" if find_faketime() else "steps clocks with libfaketime, on Linux only: install libfaketime",
)


def months_ahead(world: World) -> None:
    """Step clocks five months ahead, thirteen back, and right again. An intake and a worker also start with a
    wrong clock."""
    assert world.clocks is not None
    for step, hours in enumerate(_HOURS):
        for name in _STEPPED:
            world.clocks.step(name, hours=hours)
            world.strike()
        _publish(world, step)
        world.pause(3)
        if hours:
            for name in ("intake-1", "worker-1"):
                world.running_fleet.kill(name)
            world.pause(4)
    if not _wait_until_in(world):
        world.notes.append("messages without an id were not all taken in within a minute")


def _publish(world: World, step: int) -> None:
    """Publish messages without an id, as producers in any language do; and with an id from a machine whose clock
    is months ahead."""
    queue = notify_queue_name(Channel.EMAIL, Lane.URGENT)
    with amqp_connection(world.rabbit.url) as connection:
        channel = connection.channel()
        for number in range(_EACH):
            plain = {
                "producer": PRODUCER,
                "idempotency_key": f"clock-{step}-{number}",
                "to": f"key-{step}-{number}@{_DOMAIN}",
                "template": "notice",
                "context": {"number": number},
            }
            ahead = {
                **plain,
                "id": str(new_id(time.time() + _MONTHS_SECONDS)),
                "idempotency_key": f"ahead-{step}-{number}",
                "to": f"ahead-{step}-{number}@{_DOMAIN}",
            }
            for message in (plain, ahead):
                body = amqp.Message(json.dumps(message).encode(), content_type="application/json", delivery_mode=2)
                channel.basic_publish_confirm(body, "", queue, timeout=10)


def _wait_until_in(world: World) -> bool:
    ends_at = time.monotonic() + 60
    while time.monotonic() < ends_at:
        if len(_key_only(world)) == _EACH * len(_HOURS) and len(_refused(world)) >= _EACH * len(_HOURS):
            return True
        world.pause(0.5)
    return False


def _key_only(world: World) -> list[tuple[UUID, float, str]]:
    """(id, accepted at, status) of the messages without an id."""
    query = """SELECT id, extract(epoch FROM accepted_at)::float, status FROM notifications
      WHERE recipient LIKE 'key-%%@' || %s"""
    with psycopg.connect(world.postgres.url, connect_timeout=5) as connection:
        return connection.execute(query, [_DOMAIN]).fetchall()


def _refused(world: World) -> list[str]:
    """The reasons for which messages of the producer with the wrong clock were refused."""
    query = "SELECT faults FROM rejected_messages WHERE position('ahead-' IN convert_from(body, 'UTF8')) > 0"
    with psycopg.connect(world.postgres.url, connect_timeout=5) as connection:
        return [json.dumps(faults) for (faults,) in connection.execute(query).fetchall()]


def check(world: World) -> list[str]:
    """Ids and partitions follow the database's clock, and only messages with a wrong id were refused, each
    once."""
    wrong = []
    found = _key_only(world)
    if len(found) != _EACH * len(_HOURS):
        wrong.append(f"{len(found)} of {_EACH * len(_HOURS)} messages without an id are in the record")
    far = [id_ for id_, at, _ in found if abs(time_of_id(id_).timestamp() - at) > _NEAR_SECONDS]
    wrong += [f"the id {id_} is of another time than its message" for id_ in far[:3]]
    accepted = world.providers.accepted()
    sent = {to: count for to, count in accepted.items() if to.startswith("key-") and to.endswith(_DOMAIN)}
    if len(sent) != len(found) or sum(sent.values()) > len(found) + _unknown(world):
        wrong.append(f"{sum(sent.values())} mails to {len(sent)} of {len(found)} recipients")
    refused = _refused(world)
    others = [why for why in refused if "bad_id_time" not in why]
    if len(refused) != _EACH * len(_HOURS) or others:
        wrong.append(
            f"{len(refused)} of {_EACH * len(_HOURS)} wrong ids were refused, {len(others)} for others' sake"
        )
    if any(to.startswith("ahead-") for to in accepted):
        wrong.append("a message with a wrong id was sent")
    with psycopg.connect(world.postgres.url, connect_timeout=5) as connection:
        for table in ("messages", "attempts", "events"):
            row = connection.execute(f"SELECT count(*) FROM {table}_default").fetchone()
            if row != (0,):
                wrong.append(f"{row[0] if row else 0} rows of {table} are in the default partition")
    return wrong


def _unknown(world: World) -> int:
    query = """SELECT count(*) FROM attempts AS a JOIN notifications AS n ON n.id = a.notification_id
      WHERE n.recipient LIKE 'key-%%@' || %s AND a.outcome = 'unknown'"""
    with psycopg.connect(world.postgres.url, connect_timeout=5) as connection:
        row = connection.execute(query, [_DOMAIN]).fetchone()
    return int(row[0]) if row else 0
