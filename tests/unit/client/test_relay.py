"""What a relay does next, on an outbox in memory and a broker that fails on command. Nothing waits."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

import pytest

from notifier.broker.batch_form import join
from notifier.client.relay import LONGEST_PAUSE_SECONDS, OutboxRow, Pair, Passed, Relay
from notifier.domain.errors import ConfigurationError, PublishFailed, PublishRefused, ServiceUnavailable
from notifier.domain.statuses import Channel, Lane
from tests.waiting import patient

EMAIL = (Channel.EMAIL, Lane.NORMAL)
CODES = (Channel.SMS, Lane.URGENT)


@dataclass
class MemoryOutbox:
    """Rows in a dictionary; `away` makes the database unusable."""

    rows: dict[UUID, OutboxRow] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=count)
    away: bool = False

    def add(self, pair: Pair = EMAIL, body: bytes = b"{}") -> UUID:
        row = OutboxRow(UUID(int=next(self.ids)), *pair, body)
        self.rows[row.id] = row
        return row.id

    def pass_on(
        self, limit: int, pairs: Sequence[Pair], publish: Callable[[Sequence[OutboxRow]], Passed]
    ) -> Passed:
        if self.away:
            raise ServiceUnavailable("away")
        wanted = [row for _, row in sorted(self.rows.items()) if row.pair in pairs]
        passed = publish(wanted[:limit])
        for id_ in passed.published:
            del self.rows[id_]
        return passed


@dataclass
class MemoryBroker:
    """Keeps what it gets; has no room for the pairs in `full`, and lets nobody write to those in `closed`."""

    got: list[tuple[Pair, bytes]] = field(default_factory=list)
    full: set[Pair] = field(default_factory=set)
    closed: set[Pair] = field(default_factory=set)

    def publish(self, channel: Channel, lane: Lane, *bodies: bytes) -> None:
        if (channel, lane) in self.closed:
            raise PublishRefused("no right to write")
        if (channel, lane) in self.full:
            raise PublishFailed("the queue is full")
        self.got.append(((channel, lane), join(bodies)))


@dataclass
class World:
    outbox: MemoryOutbox = field(default_factory=MemoryOutbox)
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    now: float = 0.0

    def relay(self, batch_rows: int = 10) -> Relay:
        return Relay(self.outbox, self.broker, batch_rows=batch_rows, clock=lambda: self.now)


@pytest.fixture
def world() -> World:
    return World()


def test_rows_of_a_queue_travel_together_urgent_ones_first(world: World) -> None:
    world.outbox.add(EMAIL, b'{"n":1}')
    world.outbox.add(EMAIL, b'{"n":2}')
    world.outbox.add(CODES, b'{"n":3}')
    world.relay().step()
    assert world.broker.got == [(CODES, b'{"n":3}'), (EMAIL, b'{"batch":[{"n":1},{"n":2}]}')]
    assert world.outbox.rows == {}


@pytest.mark.parametrize("body", [b"not json", b"[1]", b'{"batch": [{}]}'])
def test_a_body_that_is_no_plain_message_travels_alone(world: World, body: bytes) -> None:
    world.outbox.add(EMAIL, b'{"n":1}')
    world.outbox.add(EMAIL, body)
    world.outbox.add(EMAIL, b'{"n":2}')
    world.relay().step()
    assert [sent for _, sent in world.broker.got] == [b'{"batch":[{"n":1},{"n":2}]}', body]


def test_a_full_batch_is_followed_at_once_and_an_empty_outbox_after_a_pause(world: World) -> None:
    for _ in range(5):
        world.outbox.add()
    relay = world.relay(batch_rows=3)
    assert [relay.step() for _ in range(3)] == [0.0, relay.idle_seconds, relay.idle_seconds]


def test_a_full_queue_pauses_alone_and_the_others_pass_it(world: World) -> None:
    for _ in range(20):
        world.outbox.add(CODES)
    world.outbox.add(EMAIL)
    world.broker.full = {CODES}
    relay = world.relay()
    assert relay.step() == 0.0
    relay.step()
    assert [pair for pair, _ in world.broker.got] == [EMAIL]
    assert len(world.outbox.rows) == 20


def test_rows_before_a_failure_are_gone_and_those_after_it_stay(world: World) -> None:
    world.outbox.add(CODES)
    failing = world.outbox.add(EMAIL)
    waiting = world.outbox.add((Channel.EMAIL, Lane.BULK))
    world.broker.full = {EMAIL}
    world.relay().step()
    assert list(world.outbox.rows) == [failing, waiting]


def test_pauses_grow_to_a_limit_and_begin_anew_after_a_success(world: World) -> None:
    world.outbox.add(EMAIL)
    world.broker.full = {EMAIL}
    relay = world.relay()
    pauses = []
    for _ in range(12):
        relay.step()
        until = relay._pauses[EMAIL].until
        pauses.append(until - world.now)
        world.now = until
    assert pauses[0] <= 0.5
    assert LONGEST_PAUSE_SECONDS / 2 <= min(pauses[-3:]) <= max(pauses) <= LONGEST_PAUSE_SECONDS
    world.broker.full = set()
    relay.step()
    assert world.outbox.rows == {}
    assert relay._pauses == {}


def test_with_every_queue_failing_it_waits_for_the_first_that_may_try_again(world: World) -> None:
    pairs = [(channel, lane) for channel in Channel for lane in Lane]
    for pair in pairs:
        world.outbox.add(pair)
    world.broker.full = set(pairs)
    relay = world.relay()
    assert [relay.step() for _ in pairs] == [0.0] * len(pairs)
    assert 0 < relay.step() <= 0.5


def test_a_database_that_is_away_is_waited_for(world: World) -> None:
    world.outbox.add()
    world.outbox.away = True
    relay = world.relay()
    assert 0 < relay.step() <= 0.5 < 4 * relay.step()
    world.outbox.away = False
    relay.step()
    assert world.outbox.rows == {}


def test_draining_passes_on_everything_and_counts_it(world: World) -> None:
    for _ in range(25):
        world.outbox.add()
    assert world.relay().drain() == 25
    assert world.relay().drain() == 0


def test_draining_says_that_the_broker_is_away(world: World) -> None:
    world.outbox.add()
    world.broker.full = {EMAIL}
    with pytest.raises(PublishFailed, match="full"):
        world.relay().drain()
    assert len(world.outbox.rows) == 1


def test_draining_passes_on_what_is_not_refused_and_names_the_rest(world: World) -> None:
    for pair in (CODES, EMAIL, (Channel.EMAIL, Lane.BULK)) * 15:
        world.outbox.add(pair)
    world.broker.full, world.broker.closed = {CODES}, {EMAIL}
    match = r"^15 published, .* notify.sms.urgent, notify.email.normal .*: no right"
    with pytest.raises(PublishRefused, match=match):
        world.relay().drain()
    assert len(world.outbox.rows) == 30
    assert {pair for pair, _ in world.broker.got} == {(Channel.EMAIL, Lane.BULK)}


def test_it_ends_when_it_is_told_to(world: World) -> None:
    world.outbox.add()
    stop = threading.Event()
    thread = threading.Thread(target=world.relay().run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(timeout=patient(5))
    assert not thread.is_alive()


def test_no_rows_at_a_time_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        Relay(MemoryOutbox(), MemoryBroker(), batch_rows=0)


def test_a_row_is_published_as_its_producer_wrote_it(world: World) -> None:
    body = json.dumps({"to": "zoë@example.com"}, ensure_ascii=False).encode()
    world.outbox.add(EMAIL, body)
    world.relay().step()
    assert world.broker.got == [(EMAIL, body)]
