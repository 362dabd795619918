"""Providers that take long to answer, on a real Postgres: their deliveries hold no thread, and end alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine

from notifier.delivery import DeliverySummary
from notifier.delivery.late_answers import Awaited, LateAnswers, Steps
from notifier.domain.errors import Unavailable
from notifier.providers.base import Outgoing, Receipt
from notifier.store.ledger import Ledger
from notifier.store.search import Audit
from tests.integration.test_deliverer import Scripted, World
from tests.support.templates import write_templates
from tests.waiting import wait_until

UNDER_WAY, SENT = DeliverySummary(1, 0, 1), DeliverySummary(1, 1, 0)


@dataclass
class Slow(Scripted):
    """Answers mails to slow@example.com when it is released."""

    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        receipt: Receipt | Exception
        try:
            receipt = await super().send(outgoing, deadline_seconds=deadline_seconds)
        except Unavailable as error:
            receipt = error
        if outgoing.to == "slow@example.com":
            await self.released.wait()
        if isinstance(receipt, Exception):
            raise receipt
        return receipt


class Killed(LateAnswers):
    """The process is killed as soon as it has taken a task, and the broker has the acknowledgement."""

    def take(self, steps: Steps[None], awaited: Awaited) -> bool:
        return True


@pytest.fixture
def world(engine: Engine, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> World:
    return World(Ledger(engine), Audit(engine), engine, write_templates(tmp_path / "templates"), loop)


@pytest.fixture
def slow(world: World) -> Iterator[Slow]:
    provider = Slow()
    yield provider
    release(world, provider)


def release(world: World, provider: Slow) -> None:
    world.loop.call_soon_threadsafe(provider.released.set)


def attempts(world: World, id_: object) -> list[tuple[str, str | None]]:
    return [(one.provider, one.outcome) for one in world.story(id_).attempts]  # type: ignore[arg-type]


def test_slow_answers_hold_no_thread_and_are_written_when_they_come(world: World, slow: Slow) -> None:
    late = LateAnswers(most=100)
    ids = [world.accept(f"slow{n}", to="slow@example.com") for n in range(12)]
    for id_ in ids:
        assert world.deliver([id_], slow, late=late) == UNDER_WAY
    assert world.deliver([world.accept("fast")], slow, late=late) == SENT
    assert {world.story(id_).notification.status for id_ in ids} == {"sending"}
    # Nobody else takes them meanwhile.
    assert world.deliver(ids, slow, is_redelivered=True) == DeliverySummary()
    release(world, slow)
    late.close()
    assert [attempts(world, id_) for id_ in ids] == [[("first", "accepted")]] * 12
    assert [event.status for event in world.story(ids[0]).events] == ["queued", "sending", "sent"]
    assert len(slow.taken) == 13


def test_the_next_provider_is_called_after_a_refusal_that_came_late(world: World, slow: Slow) -> None:
    late, second = LateAnswers(most=100), Scripted("second")
    slow.error = Unavailable("away")
    id_ = world.accept(to="slow@example.com")
    assert world.deliver([id_], slow, second, late=late) == UNDER_WAY
    assert second.taken == []
    release(world, slow)
    late.close()
    assert attempts(world, id_) == [("first", "unavailable"), ("second", "accepted")]
    assert [event.status for event in world.story(id_).events] == ["queued", "sending", "sent"]


def test_a_batch_goes_on_with_those_that_are_slow(world: World, slow: Slow) -> None:
    late = LateAnswers(most=100)
    ids = [world.accept("fast"), world.accept("slow", to="slow@example.com")]
    assert world.deliver(ids, slow, late=late) == DeliverySummary(2, 1, 1)
    assert [world.story(id_).notification.status for id_ in ids] == ["sent", "sending"]
    release(world, slow)
    late.close()
    assert [world.story(id_).notification.status for id_ in ids] == ["sent", "sent"]


def test_what_finds_no_room_keeps_its_thread(world: World, slow: Slow) -> None:
    late, summaries = LateAnswers(most=1), list[DeliverySummary]()
    first, second = (world.accept(f"slow{n}", to="slow@example.com") for n in range(2))
    assert world.deliver([first], slow, late=late) == UNDER_WAY
    thread = threading.Thread(target=lambda: summaries.append(world.deliver([second], slow, late=late)))
    thread.start()
    wait_until(lambda: len(slow.taken) == 2)
    release(world, slow)
    thread.join()
    assert summaries == [SENT]
    late.close()


def test_a_kill_after_the_task_was_acknowledged_leaves_an_unknown_outcome(world: World, slow: Slow) -> None:
    killed = Killed(most=100)
    id_ = world.accept(to="slow@example.com")
    assert world.deliver([id_], slow, late=killed) == UNDER_WAY
    assert attempts(world, id_) == [("first", None)]
    world.pass_time()
    note = world.story(id_).notification
    assert (note.status, note.reason) == ("unknown", "outcome_unknown")
    assert attempts(world, id_) == [("first", "unknown")]
    killed.close()
