"""Readers of both brokers go on, whatever comes and whatever ends their process; only the culprit is given up."""

from __future__ import annotations

import base64
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection

from notifier.broker import topology
from notifier.broker.amqp_transport import RAW_PROPERTIES
from notifier.domain.statuses import Channel, Lane
from notifier.intake import Received
from notifier.store.search import Filter
from tests.integration.fatal_reader import FATAL
from tests.integration.test_intake import World, encode, publish_when_ready, reading, world
from tests.support import forking
from tests.support.brokers import amqp_connection, envelope_of, publish_raw, push_raw
from tests.support.strange import properties
from tests.support.strange.rabbitmq import publish_properties
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until

__all__ = ["world"]

_NESTED = b"\x01aA" + len(properties._nested(2000)).to_bytes(4, "big") + properties._nested(2000)
_MILLISECONDS = b"\x07sent_atT" + (1_764_400_000_000).to_bytes(8, "big")
#: name → (properties, field of the fault)
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "time in milliseconds": (properties.wire({"application_headers": _MILLISECONDS}), "headers.sent_at"),
    "deep table": (properties.wire({"application_headers": _NESTED}), "headers.a"),
    "name of a header": (properties.wire({"application_headers": b"\x01\xffV"}), "headers"),
    **{
        name: (properties.wire({name: b"\xff\xfe"}), name)
        for name in (
            "content_type",
            "content_encoding",
            "correlation_id",
            "reply_to",
            "message_id",
            "type",
            "app_id",
        )
    },
}


def test_properties_that_cannot_be_read_are_a_fault_and_all_bytes_are_kept(world: World, amqp_url: str) -> None:
    with reading(amqp_url, world.intake.process) as thread:
        publish_when_ready(amqp_url, "email.normal", encode())
        for raw, _ in UNREADABLE.values():
            publish_properties(amqp_url, "notify", b"email.normal", raw, encode(idempotency_key="odd"))
        publish_raw(amqp_url, "email.normal", encode(idempotency_key="behind"))
        wait_until(lambda: len(world.audit.search(Filter())) == 2, timeout=20)
        wait_until(lambda: len(world.audit.rejected()) == len(UNREADABLE))
        assert thread.is_alive()
    kept = {base64.b64decode(row.headers[RAW_PROPERTIES]): row for row in world.audit.rejected()}
    for name, (raw, field) in UNREADABLE.items():
        (fault,) = kept[raw].faults
        assert (fault["code"], fault["field"]) == ("bad_properties", field), name
        assert kept[raw].body == encode(idempotency_key="odd")


def test_a_routing_key_of_any_bytes_is_survived(world: World, amqp_url: str) -> None:
    """The queue is found by the header CC; the key itself comes with the delivery."""
    copy = b"\x02CCA" + b"\x00\x00\x00\x11S\x00\x00\x00\x0cemail.normal"
    with reading(amqp_url, world.intake.process):
        publish_when_ready(amqp_url, "email.normal", encode())
        raw = properties.wire({"content_type": b"application/json", "application_headers": copy})
        publish_properties(amqp_url, "notify", b"\xff\xfe", raw, encode(idempotency_key="odd"))
        wait_until(lambda: len(world.audit.search(Filter())) == 2, timeout=20)


@contextmanager
def restarted(folder: Path, *arguments: str) -> Iterator[Callable[[], list[int]]]:
    """The fatal reader, started again whenever it ends. Gives what tells the exit codes so far."""
    command = [sys.executable, "-m", "tests.integration.fatal_reader", *arguments]
    ends = folder / "ends"
    with ends.open("wb") as out, (folder / "reader.log").open("wb") as log:
        process = forking.launch(command, stdout=out, stderr=log)
    try:
        yield lambda: [int(line) for line in ends.read_text().split()]
    finally:
        process.terminate()
        process.wait(patient(20))


def test_only_the_message_that_ends_the_intake_is_given_up(
    world: World, database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    """Every lane has messages in hand when the process ends; they are accepted, with few deliveries each."""
    with Connection(amqp_url) as declaring:
        topology.declare_for_producers(declaring.channel())
    _fill(amqp_url)
    audit, templates = world.audit, write_templates(tmp_path / "given")
    with (
        amqp_connection(amqp_url) as connection,
        restarted(tmp_path, amqp_url, database_url, str(templates)) as ends,
    ):
        channel = connection.channel()
        wait_until(lambda: _count(channel, "notify.dead") == 1, timeout=100, every=0.2)
        wait_until(lambda: sum(row.count for row in audit.count()) == 66, timeout=30)
        assert ends() == [-signal.SIGKILL] * (topology.DELIVERY_LIMIT + 1)
        assert FATAL in channel.basic_get("notify.dead", no_ack=True).body
    assert audit.rejected() == []


def _count(channel: Any, queue: str) -> int:
    found: int = channel.queue_declare(queue, passive=True).message_count
    return found


def _fill(broker_url: str) -> None:
    """Ten good ones for each queue with the fatal one in the middle of one queue, and six behind them."""
    for number in range(10):
        for channel, lane in topology.pairs():
            publish_raw(broker_url, f"{channel}.{lane}", _message(channel, lane, number))
        if number == 5:
            publish_raw(broker_url, "email.bulk", encode(idempotency_key="x", reference=FATAL.decode()))
    for channel, lane in topology.pairs():
        publish_raw(broker_url, f"{channel}.{lane}", _message(channel, lane, 99))


def _message(channel: Channel, lane: Lane, number: int) -> bytes:
    key = f"{channel}-{lane}-{number}"
    if channel is Channel.SMS:
        return encode(idempotency_key=key, to="+15550100123", template="code", context={"code": "1"})
    return encode(idempotency_key=key)


def test_only_the_entry_that_ends_the_intake_is_rejected(
    world: World, database_url: str, redis_broker_url: str, tmp_path: Path
) -> None:
    _fill(redis_broker_url)
    audit, templates = world.audit, write_templates(tmp_path / "given")
    with restarted(tmp_path, redis_broker_url, database_url, str(templates)) as ends:
        wait_until(lambda: len(audit.rejected()) == 1, timeout=100, every=0.2)
        wait_until(lambda: sum(row.count for row in audit.count()) == 66, timeout=60)
    (row,) = audit.rejected()
    assert (row.faults[0]["code"], row.queue) == ("gave_up", "notify.email.bulk")
    assert FATAL in row.body
    assert ends() == [-signal.SIGKILL] * topology.TAKINGS_LIMIT


def test_a_message_that_the_code_fails_on_costs_no_other_one(world: World, broker_url: str) -> None:
    """Not only the process: whatever is raised for one message."""
    raised = Counter[str]()

    def handle(batch: Sequence[Received]) -> object:
        if any(FATAL in received.body and not received.faults for received in batch):
            raised[f"{len(batch) == 1}"] += 1
            raise KeyError("a bug")
        return world.intake.process(batch)

    with reading(broker_url, handle):
        publish_when_ready(broker_url, "email.normal", encode(idempotency_key="0"))
        for number in range(1, 20):
            publish_raw(broker_url, "email.normal", encode(idempotency_key=str(number)))
            if number == 10:
                publish_raw(broker_url, "email.normal", encode(reference=FATAL.decode()))
        wait_until(lambda: sum(row.count for row in world.audit.count()) == 20, timeout=30)
        if broker_url.startswith("redis"):
            wait_until(lambda: len(world.audit.rejected()) == 1, timeout=30)
        else:
            connection = amqp_connection(broker_url)
            wait_until(lambda: _count(connection.channel(), "notify.dead") == 1, timeout=30)
            connection.close()
    assert raised["True"] >= topology.TAKINGS_LIMIT - 1


STRANGE_KEYS: dict[str | bytes, Any] = {
    "notifier:taken:x": ["y"],
    "notifier:taken:": "string",
    b"notifier:taken:\xff": ["y"],
    "notifier:suspect:x:y": "string",
    "notifier:taken:dead:notify.email.urgent": "string",
    "notifier:again:notify.email.bulk": "string",
    "notify.email.normal\x06\x163": {"a": "b"},
    "notify.sms.normal": "string",
}


def test_keys_that_nobody_of_ours_made_stop_no_queue(world: World, redis_broker_url: str) -> None:
    with redis.Redis.from_url(redis_broker_url) as client:
        for key, value in STRANGE_KEYS.items():
            if isinstance(value, list):
                client.lpush(key, *value)
            elif isinstance(value, dict):
                client.hset(key, mapping=value)
            else:
                client.set(key, value)
        client.lpush("notifier:taken:dead:notify.email.normal", envelope_of(encode(idempotency_key="left")))
        with reading(redis_broker_url, world.intake.process):
            wait_until(lambda: client.type("notify.sms.normal") in (b"none", b"list"), timeout=20)
            for channel, lane in topology.pairs():
                push_raw(redis_broker_url, f"notify.{channel}.{lane}", envelope_of(_message(channel, lane, 1)))
            wait_until(lambda: len(world.audit.search(Filter())) == 7, timeout=20)
        # What stood there is not lost: somebody may have meant it.
        (aside,) = client.keys("notifier:strange:*:notify.sms.normal")
        assert client.get(aside) == b"string"


@pytest.mark.parametrize("depth", [300, 900])
def test_headers_that_cannot_be_written_down_do_not_hold_up_a_queue(
    world: World, redis_broker_url: str, depth: int
) -> None:
    made = json.loads(envelope_of(b"no json"))
    entry = json.dumps(made).replace('"headers": {}', '"headers": {"a": ' + "[" * depth + "]" * depth + "}")
    with reading(redis_broker_url, world.intake.process):
        push_raw(redis_broker_url, "notify.email.normal", entry.encode())
        publish_raw(redis_broker_url, "email.normal", encode())
        wait_until(lambda: len(world.audit.search(Filter())) == 1, timeout=20)
        wait_until(lambda: len(world.audit.rejected()) == 1, timeout=20)
