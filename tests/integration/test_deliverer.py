"""Delivery on a real Postgres, with providers that answer as they are told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.config import Sender, Settings, Structure
from notifier.delivery import Deliverer, Summary
from notifier.errors import OutcomeUnknown, Rejected, ServiceUnavailable, Throttled, Unavailable
from notifier.message import Message, check
from notifier.providers.base import Outgoing, Provider, Receipt
from notifier.rendering import Renderer
from notifier.status import Channel, Lane, OnUnknown, Reason
from notifier.store.audit import Audit, Story
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger, NewNotification, Result
from tests.support.templates import write_templates


@dataclass
class Scripted:
    """A provider that takes everything, or raises what it is given."""

    name: str = "first"
    channel: Channel = Channel.EMAIL
    error: Exception | None = None
    before: Callable[[Outgoing], None] | None = None
    taken: list[Outgoing] = field(default_factory=list)

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Self:
        return cls(name)

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        self.taken.append(outgoing)
        if self.before:
            self.before(outgoing)
        if self.error:
            raise self.error
        return Receipt(f"{self.name}-{outgoing.attempt}", "250 ok")

    async def check(self, *, deadline_seconds: float) -> str:
        return "well"

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@dataclass
class World:
    ledger: Ledger
    audit: Audit
    engine: Engine
    templates: Path
    loop: asyncio.AbstractEventLoop

    def accept(self, key: str = "k", *, template: str = "hello", context: Any = None, **fields: Any) -> UUID:
        context = {"name": "Ann"} if context is None else context
        message = check(
            Message(
                idempotency_key=key,
                producer="shop",
                to=fields.pop("to", "ann@example.com"),
                template=template,
                context=context,
                **fields,
            ),
            Channel.EMAIL,
            Lane.NORMAL,
        )
        new = NewNotification(message, Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.HOLD, 0)
        (answer,) = self.ledger.accept([new])
        return answer.id

    def deliver(
        self, ids: Sequence[UUID], *providers: Provider, ledger: Ledger | None = None, **settings: Any
    ) -> Summary:
        structure = Structure(senders={"default": Sender(email="Shop <shop@example.com>")})
        # Past the checks of the settings, which refuse some of what is tried here.
        made = Settings().model_copy(update={"structure": structure, **settings})
        deliverer = Deliverer(
            ledger or self.ledger, Renderer(self.templates), {Channel.EMAIL: providers}, made, self.loop
        )
        return deliverer.deliver(ids)

    def story(self, notification_id: UUID) -> Story:
        return self.audit.story(notification_id)


@pytest.fixture
def world(engine: Engine, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> World:
    return World(Ledger(engine), Audit(engine), engine, write_templates(tmp_path / "templates"), loop)


def test_a_batch_is_rendered_sent_and_recorded(world: World) -> None:
    ids = [world.accept(f"k{n}", to=f"user{n}@example.com") for n in range(30)]
    provider = Scripted()
    assert world.deliver(ids, provider) == Summary(claimed=30, sent=30, other=0)
    assert {o.to for o in provider.taken} == {f"user{n}@example.com" for n in range(30)}
    outgoing = provider.taken[0]
    assert (outgoing.subject, outgoing.sender, outgoing.attempt) == ("Hello Ann", "Shop <shop@example.com>", 1)
    note = world.story(ids[0]).notification
    assert (note.status, note.provider, note.provider_message_id) == ("sent", "first", "first-1")
    assert note.template_version != "v1"


def test_ids_that_are_not_queued_are_left_alone(world: World) -> None:
    notification_id = world.accept()
    provider = Scripted()
    world.deliver([notification_id], provider)
    assert world.deliver([notification_id], provider) == Summary()
    assert len(provider.taken) == 1


def test_the_attempt_is_committed_before_the_call(world: World) -> None:
    notification_id = world.accept()
    seen: list[str | None] = []

    def look(outgoing: Outgoing) -> None:
        (attempt,) = world.story(outgoing.notification_id).attempts
        seen.append(attempt.outcome)

    world.deliver([notification_id], Scripted(before=look))
    assert seen == [None]
    assert world.story(notification_id).attempts[0].outcome == "accepted"


@pytest.mark.parametrize("error", [Unavailable("away"), Throttled("slow", retry_after_seconds=60)])
def test_the_next_provider_is_tried_when_the_first_surely_did_not_take_it(world: World, error: Exception) -> None:
    notification_id = world.accept()
    first, second = Scripted("first", error=error), Scripted("second")
    assert world.deliver([notification_id], first, second).sent == 1
    story = world.story(notification_id)
    assert [(a.provider, a.outcome) for a in story.attempts] == [
        ("first", "throttled" if isinstance(error, Throttled) else "unavailable"),
        ("second", "accepted"),
    ]
    assert story.notification.provider == "second"
    assert [e.status for e in story.events] == ["queued", "sending", "sent"]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (OutcomeUnknown("lost"), "unknown", "outcome_unknown"),
        (Rejected("no", reason=Reason.INVALID_RECIPIENT, code="550"), "failed", "invalid_recipient"),
        (RuntimeError("a bug"), "failed", "technical_error"),
    ],
)
def test_no_other_provider_is_tried_for_anything_else(
    world: World, error: Exception, status: str, reason: str
) -> None:
    notification_id = world.accept()
    second = Scripted("second")
    world.deliver([notification_id], Scripted(error=error), second)
    note = world.story(notification_id).notification
    assert (note.status, note.reason) == (status, reason)
    assert second.taken == []


def test_all_providers_away_means_another_time(world: World) -> None:
    notification_id = world.accept()
    away = Unavailable("away")
    world.deliver([notification_id], Scripted("a", error=away), Scripted("b", error=away))
    note = world.story(notification_id).notification
    assert (note.status, note.reason, note.attempt_count) == ("retrying", "provider_unavailable", 2)
    assert note.due_at is not None


def test_one_bad_context_does_not_stop_its_batch(world: World) -> None:
    # Past the intake's check, as if the template had changed since.
    bad = world.accept("bad", context={})
    good = world.accept("good")
    assert world.deliver([bad, good], Scripted()).sent == 1
    note = world.story(bad).notification
    assert (note.status, note.reason) == ("failed", "template_error")
    assert world.story(bad).attempts == ()


def test_a_template_that_is_gone_is_waited_for(world: World) -> None:
    notification_id = world.accept(template="gone")
    world.deliver([notification_id], Scripted())
    note = world.story(notification_id).notification
    assert (note.status, note.reason) == ("retrying", "template_error")


def test_without_provider_or_sender_it_waits(world: World) -> None:
    without_provider, without_sender = world.accept("p"), world.accept("s")
    world.deliver([without_provider])
    world.deliver([without_sender], Scripted(), structure=Structure())
    for notification_id in (without_provider, without_sender):
        note = world.story(notification_id).notification
        assert (note.status, note.reason) == ("retrying", "not_configured")


def test_a_provider_that_ignores_its_deadline_is_cut_off(world: World) -> None:
    class Deaf(Scripted):
        async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
            await asyncio.Event().wait()
            raise AssertionError

    notification_id = world.accept()
    world.deliver([notification_id], Deaf(), call_deadline_seconds=0.1)
    assert world.story(notification_id).notification.status == "unknown"


def test_no_call_is_made_when_the_lease_is_nearly_over(world: World) -> None:
    notification_id = world.accept()
    provider = Scripted()
    world.deliver([notification_id], provider, lease_seconds=10, call_deadline_seconds=30)
    assert provider.taken == []
    note = world.story(notification_id).notification
    assert (note.status, note.attempt_count) == ("sending", 0)


def test_results_wait_for_a_database_that_went_away(world: World) -> None:
    class AwayAtFirst(Ledger):
        tries = 0

        def finish(self, results: Sequence[Result]) -> None:
            self.tries += 1
            if self.tries < 3:
                raise ServiceUnavailable("the database cannot be used now")
            super().finish(results)

    notification_id = world.accept()
    ledger = AwayAtFirst(world.engine)
    assert world.deliver([notification_id], Scripted(), ledger=ledger).sent == 1
    assert ledger.tries == 3
    assert world.story(notification_id).notification.status == "sent"


def test_an_expired_notification_is_not_sent(world: World) -> None:
    notification_id = world.accept()
    with transaction(world.engine) as connection:
        connection.execute(text("UPDATE notifications SET expires_at = now() - interval '1 second'"))
    provider = Scripted()
    world.deliver([notification_id], provider)
    assert provider.taken == []
    assert world.story(notification_id).notification.status == "expired"
