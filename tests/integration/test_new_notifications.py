"""A new notification is rendered before it is claimed. Whatever happens meanwhile, it ends as if it were claimed
first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import Engine, event, text

from notifier.config.settings import Settings
from notifier.config.structure import Structure
from notifier.delivery import DeliverySummary
from notifier.delivery.rate_limiter import RateLimiter
from notifier.domain.errors import ServiceUnavailable, Throttled
from notifier.domain.statuses import Channel, Status, SuppressionReason
from notifier.feedback.suppressions import Suppressions
from notifier.operations.notifications import Operations
from notifier.security.recipient_hash import HashKey
from notifier.store.engine import transaction
from notifier.store.ledger import MAX_CRASHES, Ledger
from notifier.store.operator_actions import OperatorActions
from notifier.store.rate_limits import RateLimitRepository
from notifier.store.records import NewAttempt, Started
from notifier.store.search import Audit
from notifier.store.selection import Selection
from notifier.store.stuck import Lateness
from tests.integration.test_deliverer import Scripted, World
from tests.support.templates import write_templates


@pytest.fixture
def world(engine: Engine, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> World:
    return World(Ledger(engine), Audit(engine), engine, write_templates(tmp_path / "templates"), loop)


class Interrupted(Ledger):
    """Something happens after the worker has rendered what it read."""

    def __init__(self, engine: Engine, happens: Callable[[], object]) -> None:
        super().__init__(engine)
        self._happens = happens

    def claim_and_start(self, *args: Any, **options: Any) -> dict[UUID, Started | None]:
        self._happens()
        return super().claim_and_start(*args, **options)


class Late(Ledger):
    """What it begins has expired by then."""

    def claim_and_start(self, calls: Sequence[NewAttempt], **options: Any) -> dict[UUID, Started | None]:
        over = datetime.now(UTC) - timedelta(hours=1)
        late = [replace(call, notification=replace(call.notification, expires_at=over)) for call in calls]
        return super().claim_and_start(late, **options)


def statuses(world: World, notification_id: UUID) -> list[str]:
    return [str(event.status) for event in world.story(notification_id).events if event.status]


def set_all(world: World, assignment: str) -> None:
    with transaction(world.engine) as connection:
        connection.execute(text(f"UPDATE messages SET {assignment}"))


def writes(world: World) -> list[str]:
    """What is written from now on: the tables of each statement."""
    found: list[str] = []

    class Noting(psycopg.Cursor[Any]):
        def execute(self, query: Any, *values: Any, **options: Any) -> Any:
            for words, name in (
                ("is_new::int", "claim"),
                ("INSERT INTO attempts", "attempt"),
                ("completed AS", "result"),
            ):
                if words in str(query):
                    found.append(name)
            return super().execute(query, *values, **options)

    @event.listens_for(world.engine, "checkout")
    def note(connection: Any, *_: Any) -> None:
        connection.cursor_factory = Noting

    return found


def test_a_new_one_is_claimed_with_its_attempt(world: World) -> None:
    id_ = world.accept()
    written = writes(world)
    assert world.deliver([id_], Scripted()).sent == 1
    assert written == ["attempt", "result"]
    assert statuses(world, id_) == ["queued", "sending", "sent"]


@pytest.mark.parametrize("what", ["its task was delivered before", "it was dispatched again", "it has files"])
def test_what_may_have_ended_a_worker_is_claimed_before_it_is_rendered(world: World, what: str) -> None:
    id_ = world.accept()
    if what == "it was dispatched again":
        world.pass_time()
    if what == "it has files":
        set_all(world, "attachments = ARRAY[gen_random_uuid()]")
    written = writes(world)
    world.deliver([id_, id_], Scripted(), is_redelivered=what == "its task was delivered before")
    assert written[0] == "claim"


class Died(BaseException):
    """A kill leaves nothing to do for the code."""


def die() -> None:
    raise Died


class Fatal(Interrupted):
    """Who renders it dies, before anything is written about it."""

    def start_attempts(self, *_: Any, **__: Any) -> dict[UUID, Started]:
        raise Died


@pytest.mark.parametrize("comes_again", [True, False], ids=["the broker delivers again", "the task is lost"])
def test_what_kills_who_renders_it_is_poison(world: World, comes_again: bool) -> None:
    id_, ledger = world.accept(), Fatal(world.engine, die)
    deaths = 0
    while world.story(id_).notification.status != "failed":
        with pytest.raises(Died):
            world.deliver([id_], Scripted(), ledger=ledger, is_redelivered=comes_again and deaths == 1)
        deaths += 1
        if deaths > 1 or not comes_again:
            world.pass_time()
    # Of the first one nobody knows.
    assert deaths == MAX_CRASHES + 1
    note = world.story(id_).notification
    assert (note.reason, note.detail) == ("technical_error", "the worker that held it went away, 3 times")


def test_of_two_tasks_with_the_same_ids_each_is_sent_once(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(20)]
    both = threading.Barrier(2)
    provider = Scripted()

    def deliver(wanted: list[UUID]) -> DeliverySummary:
        return world.deliver(wanted, provider, ledger=Interrupted(world.engine, both.wait))

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(deliver, (ids, ids[::-1]))
    assert first + second == DeliverySummary(20, 20, 0)
    assert sorted(outgoing.notification_id for outgoing in provider.taken) == sorted(ids)
    assert {tuple(statuses(world, id_)) for id_ in ids} == {("queued", "sending", "sent")}


def test_an_id_that_a_task_names_twice_is_sent_once(world: World) -> None:
    id_, provider = world.accept(), Scripted()
    assert world.deliver([id_, id_], provider) == DeliverySummary(1, 1, 0)
    assert len(provider.taken) == 1


def test_who_is_suppressed_meanwhile_gets_no_call(world: World) -> None:
    ann, ben = world.accept("ann"), world.accept("ben", to="ben@example.com")
    address: dict[str, Any] = {"channel": Channel.EMAIL, "address": "ann@example.com"}

    def suppress() -> None:
        suppressions = Suppressions(world.engine, HashKey())
        assert suppressions.add(**address, reason=SuppressionReason.MANUAL, source="operator:ops")

    provider = Scripted()
    summary = world.deliver([ann, ben], provider, ledger=Interrupted(world.engine, suppress))
    assert summary == DeliverySummary(2, 1, 1)
    assert [outgoing.to for outgoing in provider.taken] == ["ben@example.com"]
    story = world.story(ann)
    assert statuses(world, ann) == ["queued", "suppressed"]
    assert (story.notification.reason, story.attempts, story.notification.due_at) == ("operator", (), None)
    assert "by operator:ops" in (story.notification.detail or "")


def test_what_expires_meanwhile_is_not_sent(world: World) -> None:
    id_, provider = world.accept(), Scripted()
    assert world.deliver([id_], provider, ledger=Late(world.engine)) == DeliverySummary()
    story = world.story(id_)
    assert (provider.taken, story.attempts, story.notification.due_at) == ([], (), None)
    assert statuses(world, id_) == ["queued", "expired"]


def test_what_is_cancelled_meanwhile_stays_so(world: World) -> None:
    id_, provider = world.accept(), Scripted()
    operations = Operations(OperatorActions(world.engine), Lateness(world.engine))
    ledger = Interrupted(world.engine, lambda: operations.cancel(Selection((id_,)), operator="ops"))
    assert world.deliver([id_], provider, ledger=ledger) == DeliverySummary()
    assert (provider.taken, world.story(id_).attempts) == ([], ())
    assert statuses(world, id_) == ["queued", "cancelled"]


def test_what_another_worker_had_meanwhile_is_not_begun_under_its_old_number(
    world: World,
) -> None:
    id_, token = world.accept(), uuid4()
    [read] = world.ledger.read_queued([id_]).new
    world.deliver([id_], Scripted(error=Throttled("slow")))
    world.pass_time()
    assert world.story(id_).notification.status == "queued"
    late = [NewAttempt(read, "first")]
    assert world.ledger.claim_and_start(late, token=token, lease_seconds=60, margin_seconds=1) == {}
    assert world.deliver([id_], Scripted()).sent == 1
    assert [attempt.number for attempt in world.story(id_).attempts] == [1, 2]


CAP = {
    "senders": {"default": {"email": "s@example.com"}},
    "caps": {"recipient": {"count": 1, "per_seconds": 3600}},
}


@pytest.mark.parametrize("what", ["a bad context", "no template", "no provider", "a cap"])
def test_what_needs_no_call_ends_as_if_it_had_been_claimed_first(world: World, what: str) -> None:
    changes: dict[str, dict[str, Any]] = {"a bad context": {"context": {}}, "no template": {"template": "gone"}}
    fields = changes.get(what, {})
    providers = () if what == "no provider" else (Scripted(),)
    settings: dict[str, Any] = {"structure": Structure.model_validate(CAP)} if what == "a cap" else {}
    if what == "a cap":
        world.deliver([world.accept("before")], *providers, **settings)
    stories = []
    for is_redelivered in (False, True):
        id_ = world.accept(f"{is_redelivered}", **fields)
        summary = world.deliver([id_], *providers, is_redelivered=is_redelivered, **settings)
        story = world.story(id_)
        note, told = story.notification, [(event.kind, event.status, event.reason) for event in story.events]
        stories.append((summary, note.status, note.reason, note.detail, note.due_at is None, story.attempts, told))
    assert stories[0] == stories[1]
    assert stories[0][0] == DeliverySummary(1, 0, 1)


def test_what_fails_before_it_is_claimed_is_tried_again_soon(world: World) -> None:
    class Away(RateLimiter):
        def permits(self, deliveries: Any) -> Any:
            raise ServiceUnavailable("the database cannot be used now")

    id_ = world.accept()
    world.limiter = Away(RateLimitRepository(world.engine), Settings())
    with pytest.raises(ServiceUnavailable):
        world.deliver([id_], Scripted())
    note = world.story(id_).notification
    assert (note.status, note.reason, note.attempt_count) == (Status.RETRYING, "technical_error", 0)
    assert statuses(world, id_) == ["queued", "sending", "retrying"]
