"""The intake on real brokers: every malformed shape is recorded, nothing stops it, the good ones get through."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from kombu import Connection

from notifier.client.client import Client
from notifier.config.structure import Sender, Structure
from notifier.domain.errors import PublishFailed, ServiceUnavailable
from notifier.domain.message import MAX_BODY_BYTES, Message, new_id
from notifier.domain.producers import Origin, ProducerProof
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import check
from notifier.intake import Intake, IntakeSummary, Received, make_reader
from notifier.intake.redis import RedisReader
from notifier.rendering import Renderer
from notifier.store.engine import make_engine
from notifier.store.ledger import Ledger
from notifier.store.search import Audit, Filter, RejectedView
from tests.support.brokers import amqp_connection, envelope_of, publish_raw, push_raw
from tests.support.slow_statements import make_slow
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until

GOOD: dict[str, Any] = {
    "idempotency_key": "good",
    "producer": "shop",
    "to": "ann@example.com",
    "template": "hello",
    "context": {"name": "Ann"},
}


@dataclass
class Tasks:
    """Takes the deliver tasks that would go to the workers."""

    published: list[tuple[Channel, Lane, list[UUID]]] = field(default_factory=list)
    fails: bool = False

    def publish(self, channel: Channel, lane: Lane, ids: Sequence[UUID]) -> None:
        if self.fails:
            raise OSError("the broker is away")
        self.published.append((channel, lane, list(ids)))


@dataclass
class World:
    """A database, an intake on it, and what it hands over."""

    ledger: Ledger
    audit: Audit
    intake: Intake
    tasks: Tasks


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    engine = make_engine(database_url, pool_size=8)
    tasks, ledger = Tasks(), Ledger(engine)
    structure = Structure(senders={"shop": Sender(email="shop@example.com", sms="+15550100100")})
    intake = Intake(ledger, Renderer(write_templates(tmp_path / "templates")), structure, tasks.publish)
    yield World(ledger, Audit(engine), intake, tasks)
    engine.dispose()


@contextmanager
def reading(broker_url: str, handle: Callable[[Sequence[Received]], object]) -> Iterator[threading.Thread]:
    """A reader in a thread, ended at the end; the test fails if it died by itself."""
    stop = threading.Event()
    thread = threading.Thread(target=make_reader(broker_url).run, args=(handle, stop))
    thread.start()
    try:
        yield thread
        assert thread.is_alive(), "the reader died"
    finally:
        stop.set()
        thread.join(timeout=patient(20))
        assert not thread.is_alive()


def encode(**change: Any) -> bytes:
    return json.dumps({**GOOD, **change}).encode()


def publish_when_ready(broker_url: str, routing_key: str, body: bytes, **properties: Any) -> None:
    """RabbitMQ refuses what no queue takes, and the reader declares the queues."""

    def publish() -> bool:
        try:
            publish_raw(broker_url, routing_key, body, **properties)
        except Exception:
            return False
        return True

    wait_until(publish, timeout=20)


PICKLE = "application/x-python-serialize"
ODD_HEADERS = {"headers": {"task": {"a": [1]}, "id": 5}}
GZIP = {"headers": {"compression": "application/x-gzip"}}
CELERY_V2 = {"lang": "py", "task": "notifier.deliver", "id": "6f1c", "argsrepr": "()", "kwargsrepr": "{}"}

#: name → (routing key, body, code of the first fault, properties)
MALFORMED: dict[str, tuple[str, bytes, str, dict[str, Any]]] = {
    "not_json": ("email.normal", b"<xml/>", "not_json", {}),
    "empty": ("email.normal", b"", "not_json", {}),
    "bad_utf8": ("email.normal", b'{"to": "\xff\xfe"}', "bad_utf8", {}),
    "a_number": ("email.normal", b"42", "not_an_object", {}),
    "null": ("email.normal", b"null", "not_an_object", {}),
    "a_list": ("email.normal", b"[[1], {}]", "not_an_object", {}),
    "deep": ("email.normal", b'{"context":' * 60_000, "not_json", {}),
    "deep_list": ("sms.bulk", b"[" * 500_000, "not_json", {}),
    "huge": ("email.bulk", b'{"x": "' + b"y" * (15 * 1024 * 1024) + b'"}', "too_large", {}),
    "wrong_types": ("email.normal", encode(to=5, context="x", metadata=[1]), "wrong_type", {}),
    "unknown_field": ("email.normal", encode(colour="red"), "unknown_field", {}),
    "unknown_template": ("email.normal", encode(template="helo"), "unknown_template", {}),
    "template_of_other_channel": ("email.normal", encode(template="code"), "unknown_template", {}),
    "missing_variable": ("email.normal", encode(context={}), "missing_variable", {}),
    "variable_of_wrong_type": ("email.normal", encode(context={"name": 7}), "wrong_type", {}),
    "no_at_sign": ("email.normal", encode(to="ann.example.com"), "not_an_address", {}),
    "no_mailbox": ("email.normal", encode(to="a b@example..com"), "not_an_address", {}),
    "not_e164": ("sms.urgent", encode(to="0555 0100", template="code"), "not_e164", {}),
    "long_ago": ("email.normal", encode(send_at="1999-12-31T23:59:59Z"), "too_long_ago", {}),
    "far_ahead": ("email.normal", encode(send_at="2999-12-31T23:59:59Z"), "too_far_ahead", {}),
    "other_channel": ("sms.normal", encode(channel="email"), "queue_mismatch", {}),
    "unknown_sender": ("email.normal", encode(sender="mallory"), "unknown_sender", {}),
    "nul": ("email.normal", encode(reference="a\0b"), "nul_character", {}),
    "pickle": ("email.normal", b"\x80\x04N.", "wrong_content_type", {"content_type": PICKLE}),
    "gzip": ("email.normal", b"\x1f\x8b", "wrong_content_encoding", {"content_encoding": "gzip"}),
    "headers_of_wrong_type": ("email.normal", encode(), "celery_message", ODD_HEADERS),
    "compression_bomb": ("email.normal", b"\x1f\x8b\x08", "bad_utf8", GZIP),
    "compression_of_wrong_type": ("email.normal", b"[]", "not_an_object", {"headers": {"compression": {"a": 1}}}),
    "celery_v2": ("email.normal", b'[["x"], {}, {}]', "celery_message", {"headers": CELERY_V2}),
    "celery_v2_hybrid": ("email.normal", b'{"args": [], "kwargs": {}}', "celery_message", {"headers": CELERY_V2}),
    "celery_v1": ("email.normal", b'{"task": "t", "id": "1", "args": [], "kwargs": {}}', "celery_message", {}),
}  # fmt: skip


def test_every_malformed_shape_is_recorded_and_a_good_message_after_it_accepted(
    world: World, broker_url: str
) -> None:
    with reading(broker_url, world.intake.process):
        for routing_key, body, _, properties in MALFORMED.values():
            publish_when_ready(broker_url, routing_key, body, **properties)
        publish_raw(broker_url, "email.normal", encode())
        wait_until(lambda: len(world.audit.search(Filter())) == 1, timeout=60)
        wait_until(lambda: len(world.audit.rejected(limit=100)) == len(MALFORMED), timeout=60)
    kept = {row.body_size: row for row in world.audit.rejected(limit=100)}
    for name, (routing_key, body, code, _) in MALFORMED.items():
        found = [row for row in _rows_of(world, body) if row.queue == f"notify.{routing_key}"]
        assert code in {fault["code"] for row in found for fault in row.faults}, name
        assert all(fault["problem"] and fault["fix"] for row in found for fault in row.faults), name
    assert kept[15 * 1024 * 1024 + 9].body == b'{"x": "' + b"y" * (64 * 1024 - 7)


def test_a_rejection_has_every_fault_and_the_contracts_first(world: World) -> None:
    body = encode(to="nobody", context={}, sender="mallory", colour="red")
    entry = json.loads(encode(to="nobody", context={}))
    batch = json.dumps({"batch": [entry, 5]}).encode()
    messages = [Received(one, Channel.EMAIL, Lane.NORMAL) for one in (body, batch)]
    world.intake.process(messages)
    found = {row.entry: [fault["code"] for fault in row.faults] for row in world.audit.rejected()}
    assert found == {
        None: ["unknown_field", "not_an_address", "missing_variable", "unknown_sender"],
        0: ["not_an_address", "missing_variable"],
        1: ["not_an_object"],
    }
    previewed = {fault.field: fault.code for fault in world.intake.rejection_faults(messages[1])}
    assert previewed == {
        "batch.0.to": "not_an_address",
        "batch.0.context.name": "missing_variable",
        "batch.1": "not_an_object",
    }


def test_the_rejection_of_a_batch_as_a_whole_has_every_fault_of_its_entries(world: World) -> None:
    good, bad = (json.loads(encode(**changed)) for changed in ({}, {"to": "nobody", "context": {}}))
    unnamed = {name: value for name, value in good.items() if name != "producer"}
    shared = {"colour": "red", "producer": "no name", "defaults": {"size": 1, "sender": "mallory"}}
    batch = json.dumps({**shared, "batch": [good, bad, 5, unnamed]}).encode()
    assert world.intake.process([Received(batch, Channel.EMAIL, Lane.BULK)]).rejected == 1
    (row,) = world.audit.rejected()
    assert (row.entry, row.body) == (None, batch)
    assert [(fault["field"], fault["code"]) for fault in row.faults] == [
        ("defaults.size", "unknown_field"),
        ("producer", "bad_format"),
        ("colour", "unknown_field"),
        ("batch.0.sender", "unknown_sender"),
        ("batch.1.to", "not_an_address"),
        ("batch.1.context.name", "missing_variable"),
        ("batch.1.sender", "unknown_sender"),
        ("batch.2", "not_an_object"),
        ("batch.3.sender", "unknown_sender"),
    ]


def _rows_of(world: World, body: bytes) -> list[RejectedView]:
    return [row for row in world.audit.rejected(limit=100) if row.body == body[: 64 * 1024]]


#: What kombu never wrote, on lists that kombu's own consumer would die of.
NO_ENVELOPES: dict[str, tuple[bytes, str]] = {
    "text": (b"hello", "not_an_envelope"),
    "plain_message": (json.dumps(GOOD).encode(), "not_an_envelope"),
    "number": (b"5", "not_an_envelope"),
    "null": (b"null", "not_an_envelope"),
    "list": (b"[]", "not_an_envelope"),
    "binary": (b"\xff\x00\xfe", "not_an_envelope"),
    "deep": (b"[" * 200_000, "not_an_envelope"),
    "no_properties": (b'{"body": "e30="}', "not_an_envelope"),
    "properties_of_wrong_type": (b'{"body": "e30=", "properties": 5}', "bad_envelope"),
    "body_of_wrong_type": (b'{"body": {"a": 1}, "properties": {}}', "bad_envelope"),
    "body_no_base64": (b'{"body": "%%%", "properties": {"body_encoding": "base64"}}', "bad_envelope"),
    "headers_of_wrong_type": (envelope_of(b"{}", headers="x"), "bad_envelope"),
    "huge": (b'"' + b"x" * (17 * 1024 * 1024) + b'"', "not_an_envelope"),
}


def test_list_entries_that_are_no_envelope_are_recorded(world: World, redis_broker_url: str) -> None:
    with reading(redis_broker_url, world.intake.process):
        for entry, _ in NO_ENVELOPES.values():
            push_raw(redis_broker_url, "notify.email.normal", entry)
        publish_raw(redis_broker_url, "email.normal", encode())
        wait_until(lambda: len(world.audit.search(Filter())) == 1, timeout=30)
        wait_until(lambda: len(world.audit.rejected(limit=100)) == len(NO_ENVELOPES), timeout=30)
    for name, (entry, code) in NO_ENVELOPES.items():
        (row,) = _rows_of(world, entry)
        assert [fault["code"] for fault in row.faults] == [code], name


def test_the_client_reaches_the_intake_and_a_repetition_is_a_duplicate(world: World, broker_url: str) -> None:
    with reading(broker_url, world.intake.process), Client(broker_url, producer="shop") as client:
        handle = client.send(
            "hello", "ann@example.com", context={"name": "Ann"}, idempotency_key="k", reference="1001"
        )
        client.send("hello", "ann@example.com", context={"name": "Ann"}, idempotency_key="k", reference="1001")
        client.send("hello", "bob@example.com", context={"name": "Bob"}, idempotency_key="k")
        wait_until(lambda: len(world.audit.rejected()) == 1)
        wait_until(lambda: world.audit.story(handle.id).duplicates == 1)
    assert [row.reference for row in world.audit.search(Filter())] == ["1001"]
    assert world.audit.rejected()[0].faults[0]["code"] == "idempotency_conflict"


def test_many_at_once_are_accepted_and_handed_over_in_groups(world: World, broker_url: str) -> None:
    entries = [
        {"to": f"user{n}@example.com", "idempotency_key": f"k{n}", "context": {"name": str(n)}}
        for n in range(2500)
    ]
    with reading(broker_url, world.intake.process), Client(broker_url, producer="shop") as client:
        handles = client.send_many(entries, channel="email", lane="bulk", template="hello")
        wait_until(lambda: sum(row.count for row in world.audit.count()) == 2500, timeout=30)
    handed = [value for _, _, ids in world.tasks.published for value in ids]
    assert sorted(handed) == sorted(handle.id for handle in handles)
    assert {(channel, lane) for channel, lane, _ in world.tasks.published} == {(Channel.EMAIL, Lane.BULK)}


def test_what_is_urgent_does_not_wait_behind_what_is_not(broker_url: str) -> None:
    came: list[Lane] = []
    done = threading.Event()

    def handle(batch: Sequence[Received]) -> None:
        came.append(batch[0].lane)
        # A batch of bulk is not written until the urgent message was.
        if batch[0].lane is Lane.URGENT:
            done.set()
        assert done.wait(patient(20))

    with reading(broker_url, handle), Client(broker_url, producer="shop") as client:
        for number in range(500):
            client.send("hello", "ann@example.com", lane="bulk", idempotency_key=str(number))
        wait_until(lambda: came == [Lane.BULK])
        client.send("hello", "ann@example.com", lane="urgent", idempotency_key="code")
        wait_until(done.is_set)


def test_a_batch_accepts_its_good_entries_and_records_each_bad_one(world: World, broker_url: str) -> None:
    body = json.dumps(
        {
            "producer": "shop",
            "template": "hello",
            "batch": [
                {"idempotency_key": "1", "to": "ann@example.com", "context": {"name": "Ann"}},
                {"idempotency_key": "2", "to": "nowhere", "context": {"name": "Bob"}},
                {"idempotency_key": "3", "to": "eve@example.com", "context": {}},
            ],
        }
    ).encode()
    with reading(broker_url, world.intake.process):
        publish_when_ready(broker_url, "email.bulk", body)
        wait_until(lambda: len(world.audit.rejected()) == 2)
    assert len(world.audit.search(Filter())) == 1
    assert sorted((row.entry, row.producer) for row in world.audit.rejected()) == [(1, "shop"), (2, "shop")]


def test_nothing_is_acknowledged_while_the_database_is_away(world: World, broker_url: str) -> None:
    tries: list[int] = []

    def away_at_first(batch: Sequence[Received]) -> object:
        tries.append(len(batch))
        if len(tries) < 3:
            raise ServiceUnavailable("the database cannot be used now")
        return world.intake.process(batch)

    with reading(broker_url, away_at_first):
        publish_when_ready(broker_url, "email.normal", encode())
        wait_until(lambda: len(world.audit.search(Filter())) == 1, timeout=30)
    assert len(tries) >= 3


def test_the_tasks_of_what_was_recorded_without_our_knowing_are_published_at_once(
    world: World, broker_url: str
) -> None:
    """The commit went through and its answer was lost: the message is in the record, and nobody has its task."""
    lost: list[object] = []

    def answer_lost_at_first(batch: Sequence[Received]) -> object:
        if not lost:
            lost.append(batch)
            published = world.intake._publish_tasks
            world.intake._publish_tasks = lambda *_: None
            world.intake.process(batch)
            world.intake._publish_tasks = published
            raise ServiceUnavailable("the answer to the commit was lost")
        return world.intake.process(batch)

    with reading(broker_url, answer_lost_at_first):
        publish_when_ready(broker_url, "email.normal", encode())
        wait_until(lambda: world.tasks.published, timeout=30)
    (row,) = world.audit.search(Filter())
    assert world.tasks.published == [(Channel.EMAIL, Lane.NORMAL, [row.id])]


def test_what_the_broker_delivers_again_gets_its_task_again_and_a_repetition_does_not(world: World) -> None:
    first = Received(encode(), Channel.EMAIL, Lane.NORMAL)
    for received in (first, first, replace(first, redelivered=True)):
        world.intake.process([received])
    (row,) = world.audit.search(Filter())
    assert [ids for _, _, ids in world.tasks.published] == [[row.id], [row.id]]
    details = [event.detail for event in world.audit.story(row.id).events if event.kind == "duplicate"]
    assert details == [
        "the producer sent it again",
        "the broker delivered it again, or the intake took it in again",
    ]


def test_a_reader_that_stops_in_the_middle_leaves_its_batch_to_the_next(world: World, broker_url: str) -> None:
    def never(_: Sequence[Received]) -> object:
        raise ServiceUnavailable("the database cannot be used now")

    with reading(broker_url, never):
        publish_when_ready(broker_url, "email.normal", encode())
    with reading(broker_url, world.intake.process):
        wait_until(lambda: len(world.audit.search(Filter())) == 1, timeout=30)


def test_what_a_dead_reader_had_taken_is_put_back(world: World, redis_broker_url: str) -> None:
    with redis.Redis.from_url(redis_broker_url) as client:
        client.lpush("notifier:taken:dead:notify.email.normal", envelope_of(encode()))
    with reading(redis_broker_url, world.intake.process):
        wait_until(lambda: len(world.audit.search(Filter())) == 1, timeout=30)
    with redis.Redis.from_url(redis_broker_url) as client:
        assert client.keys("notifier:taken:*") == []


def test_a_message_with_a_priority_is_read_too(world: World, redis_broker_url: str) -> None:
    with Connection(redis_broker_url) as connection, connection.Producer() as producer:
        producer.publish(
            encode(), routing_key="notify.email.normal", priority=9, content_type="application/json",
            content_encoding="utf-8",
        )  # fmt: skip
    with reading(redis_broker_url, world.intake.process):
        wait_until(lambda: len(world.audit.search(Filter())) == 1)


def test_what_a_living_reader_has_taken_stays_its_own(redis_broker_url: str) -> None:
    with redis.Redis.from_url(redis_broker_url) as client:
        client.set("notifier:reader:alive", "alive", ex=30)
        client.lpush("notifier:taken:alive:notify.email.normal", b"x")
        RedisReader(redis_broker_url)._rescue(client)
        assert client.llen("notifier:taken:alive:notify.email.normal") == 1


def test_tasks_that_cannot_be_published_lose_nothing(world: World, broker_url: str) -> None:
    world.tasks.fails = True
    with reading(broker_url, world.intake.process):
        publish_when_ready(broker_url, "email.urgent", encode())
        wait_until(lambda: len(world.audit.search(Filter(status="queued"))) == 1)
    (row,) = world.audit.search(Filter())
    assert row.due_at is not None
    # Soon: not after the time that a task has to be taken.
    assert row.due_at - row.accepted_at < timedelta(seconds=20)


def test_a_message_that_makes_our_code_fail_is_isolated(world: World) -> None:
    class Broken(Renderer):
        """Fails on one message, as a bug would."""

        def check_context(self, channel: Channel, name: str, context: Any) -> list[Any]:
            if context.get("name") == "crash":
                raise RuntimeError("a bug")
            return super().check_context(channel, name, context)

    intake = Intake(world.ledger, Broken(world.intake._renderer._root), Structure(), world.tasks.publish)
    batch = [
        Received(encode(idempotency_key=name, context={"name": name}), Channel.EMAIL, Lane.NORMAL)
        for name in ("one", "crash", "two")
    ]
    summary = intake.process(batch)
    assert (summary.accepted, summary.rejected) == (2, 1)
    assert world.audit.rejected()[0].faults[0]["code"] == "technical_error"


def test_a_body_at_the_limit_is_still_read(world: World) -> None:
    padding = "x" * (MAX_BODY_BYTES - len(encode(context={"name": "Ann", "pad": ""})))
    body = encode(context={"name": "Ann", "pad": padding})
    assert len(body) == MAX_BODY_BYTES
    assert world.intake.process([Received(body, Channel.EMAIL, Lane.NORMAL)]).accepted == 1


def test_a_batch_that_shares_much_is_written_in_portions(world: World) -> None:
    shared = {"to": "ann@example.com", "template": "hello", "context": {"name": "x" * 12_000}}
    entries = [{"idempotency_key": str(n)} for n in range(1000)]
    body = json.dumps({"producer": "shop", "defaults": shared, "batch": [*entries, {"idempotency_key": 1}]})
    received = Received(body.encode(), Channel.EMAIL, Lane.BULK)
    assert world.intake.process([received]) == IntakeSummary(rejected=1)
    body = json.dumps({"producer": "shop", "defaults": shared, "batch": [*entries[1:], {"idempotency_key": 1}]})
    good = Received(encode(), Channel.EMAIL, Lane.BULK)
    summary = world.intake.process([good, replace(received, body=body.encode()), good])
    assert summary == IntakeSummary(accepted=1000, duplicates=1, rejected=1)


def test_any_amqp_client_can_produce(world: World, amqp_url: str) -> None:
    with reading(amqp_url, world.intake.process):
        publish_when_ready(amqp_url, "email.urgent", encode(), content_type=None)
        wait_until(lambda: len(world.audit.search(Filter())) == 1)
        event = {"specversion": "1.0", "id": "7", "source": "/orders", "type": "order.shipped"}
        body = json.dumps({**event, "data": {**GOOD, "idempotency_key": None}}).encode()
        for _ in range(2):
            publish_raw(amqp_url, "email.urgent", body, content_type="application/cloudevents+json")
        publish_raw(amqp_url, "email.urgent", encode(idempotency_key="last"))
        wait_until(lambda: len(world.audit.search(Filter())) == 3)
    assert {one.idempotency_key for one in world.audit.search(Filter())} >= {"/orders 7", "last"}
    assert world.tasks.published[0][:2] == (Channel.EMAIL, Lane.URGENT)


def test_queues_are_quorum_queues_with_a_limit_and_a_dead_letter_exchange(amqp_url: str) -> None:
    with Client(amqp_url, producer="shop") as client:
        client.send("hello", "ann@example.com", context={"name": "Ann"})
    connection = amqp_connection(amqp_url)
    channel = connection.channel()
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 50,
        "x-dead-letter-exchange": "notify.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    # A declaration that differs in any argument is refused by the broker.
    found = channel.queue_declare("notify.email.normal", durable=True, auto_delete=False, arguments=arguments)
    assert found.message_count == 1
    connection.close()


def test_a_publish_to_a_broker_that_is_not_there_fails_within_its_deadline() -> None:
    client = Client("amqp://guest:guest@127.0.0.1:1//", producer="shop", timeout_seconds=1)
    with pytest.raises(PublishFailed, match="publish again"):
        client.send("hello", "ann@example.com", context={"name": "Ann"})
    client.close()


def test_a_batch_that_takes_the_database_too_long_is_accepted_in_parts(world: World, database_url: str) -> None:
    engine = make_engine(database_url)
    make_slow(engine, "INSERT", above=3)
    engine.dispose()
    batch = [
        Received(
            encode(idempotency_key=f"key{number}"), Channel.EMAIL, Lane.NORMAL, content_type="application/json"
        )
        for number in range(10)
    ]
    assert world.intake.process(batch) == IntakeSummary(accepted=10)
    assert sum(len(ids) for _, _, ids in world.tasks.published) == 10
    given = {"producer": "shop", "to": "ann@example.com", "template": "hello", "context": {"name": "Ann"}}
    messages = [check(Message(**given, id=new_id()), Channel.EMAIL, Lane.NORMAL) for _ in range(10)]
    answers = world.intake.answer(messages, Origin(ProducerProof.API_KEY))
    assert [answer.id for answer in answers] == [message.id for message in messages]
