"""Delivery on a real Postgres, with providers that answer as they are told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, Self
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.config.settings import Settings
from notifier.config.structure import Sender, Structure
from notifier.delivery import CircuitBreaker, Deliverer, DeliverySummary, Reconciler, deliver, reconcile
from notifier.delivery.delivery import Permit
from notifier.delivery.late_answers import LateAnswers
from notifier.delivery.prepare import Composer
from notifier.delivery.provider_calls import ProviderCaller
from notifier.delivery.rate_limiter import RateLimiter
from notifier.delivery.results import Results
from notifier.domain.errors import OutcomeUnknown, Rejected, ServiceUnavailable, Throttled, Unavailable
from notifier.domain.message import Message
from notifier.domain.statuses import SIMULATOR, Channel, Lane, OnUnknown, Reason
from notifier.domain.validation import check
from notifier.providers.base import Outgoing, Provider, Receipt, Sought
from notifier.providers.simulator import Simulator
from notifier.rendering import Renderer
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import Tokens, UnsubscribeLink
from notifier.store.attachments import AttachmentRepository
from notifier.store.circuits import WOKEN_TO_PROBE, CircuitRepository
from notifier.store.engine import transaction
from notifier.store.ledger import Ledger
from notifier.store.provider_health import HealthRepository
from notifier.store.rate_limits import RateLimitRepository, Turn
from notifier.store.records import DeliveryResult, NewNotification
from notifier.store.search import Audit, Story
from tests.support.templates import write_template, write_templates
from tests.waiting import Stalls


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


@dataclass
class World:
    ledger: Ledger
    audit: Audit
    engine: Engine
    templates: Path
    loop: asyncio.AbstractEventLoop
    limiter: RateLimiter | None = None
    hash_key: HashKey = field(default_factory=HashKey)

    def accept(
        self,
        key: str = "k",
        *,
        template: str = "hello",
        context: Any = None,
        on_unknown: OnUnknown = OnUnknown.HOLD,
        **fields: Any,
    ) -> UUID:
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
        new = NewNotification(message, Channel.EMAIL, Lane.NORMAL, "v1", on_unknown, 0)
        (answer,) = self.ledger.accept([new])
        return answer.id

    def deliver(
        self,
        ids: Sequence[UUID],
        *providers: Provider,
        ledger: Ledger | None = None,
        is_redelivered: bool = False,
        late: LateAnswers | None = None,
        **settings: Any,
    ) -> DeliverySummary:
        structure = Structure(senders={"default": Sender(email="Shop <shop@example.com>")})
        # Past the checks of the settings, which refuse some of what is tried here.
        made = Settings().model_copy(update={"structure": structure, **settings})
        deadline = made.call_deadline_seconds
        configured = {Channel.EMAIL: [provider.name for provider in providers]}
        known = {**{provider.name: provider for provider in providers}, SIMULATOR: Simulator()}
        # One for all workers of a test, as one for each process of the service.
        self.limiter = (
            RateLimiter(RateLimitRepository(self.engine), made) if self.limiter is None else self.limiter
        )
        health, book = HealthRepository(self.engine), CircuitRepository(self.engine)
        deliverer = Deliverer(
            ledger or self.ledger,
            self._composer(made),
            CircuitBreaker(health, book, configured, {}, deadline_seconds=deadline),
            ProviderCaller(self.loop, known, self.limiter, slots=made.worker_calls, deadline_seconds=deadline),
            Results(made, known, self.hash_key),
            made,
            late=late,
        )
        return deliverer.deliver(ids, is_redelivered=is_redelivered)

    def reconcile(self, ids: Sequence[UUID], *providers: Provider, **settings: Any) -> int:
        return self.reconciler(*providers, **settings).reconcile(ids)

    def reconciler(self, *providers: Provider, stop: Event | None = None, **settings: Any) -> Reconciler:
        senders = Structure(senders={"default": Sender(email="Shop <shop@example.com>")})
        made = Settings().model_copy(update={"structure": senders, **settings})
        known = {provider.name: provider for provider in providers}
        return Reconciler(self.ledger, self._composer(made), known, made, self.loop, stop)

    def _composer(self, made: Settings) -> Composer:
        tokens = Tokens(self.hash_key, bounce_address=made.bounce_address, public_url=made.public_url)
        return Composer(Renderer(self.templates), made, self.hash_key, tokens, AttachmentRepository(self.engine))

    def pass_time(self) -> None:
        """As if everything that waits had become due, and every pause of a circuit were over."""
        with transaction(self.engine) as connection:
            connection.execute(text("UPDATE states SET due_at = now() WHERE due_at IS NOT NULL"))
            connection.execute(text("UPDATE circuits SET open_until = now() WHERE open_until IS NOT NULL"))
        self.ledger.take_due(limit=1000, unknown_after_seconds=30)

    def story(self, notification_id: UUID) -> Story:
        return self.audit.story(notification_id)


@pytest.fixture
def world(engine: Engine, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> World:
    return World(Ledger(engine), Audit(engine), engine, write_templates(tmp_path / "templates"), loop)


def openings(world: World, sender: str = "") -> int:
    """Of the circuit of `first`, or of a sender there."""
    states = {state.key.sender: state for state in CircuitRepository(world.engine).states()}
    return states[sender].openings if sender in states else 0


def test_a_batch_is_rendered_sent_and_recorded(world: World) -> None:
    ids = [world.accept(f"k{n}", to=f"user{n}@example.com") for n in range(30)]
    provider = Scripted()
    assert world.deliver(ids, provider) == DeliverySummary(claimed=30, sent=30, other=0)
    assert {o.to for o in provider.taken} == {f"user{n}@example.com" for n in range(30)}
    outgoing = provider.taken[0]
    assert (outgoing.subject, outgoing.sender, outgoing.attempt) == ("Hello Ann", "Shop <shop@example.com>", 1)
    note = world.story(ids[0]).notification
    assert (note.status, note.provider, note.provider_message_id) == ("sent", "first", "first-1")
    assert note.template_version != "v1"


def test_a_mail_gets_a_return_path_and_one_that_nobody_asked_for_a_link(world: World) -> None:
    world.hash_key = HashKey("a key for tests only")
    write_template(world.templates, "digest", 'category = "digest"\ntransactional = false')
    (world.templates / "email/digest/body.txt").write_text("To stop this: {{ unsubscribe_url }}")
    ids = [world.accept("k1"), world.accept("k2", template="digest", locale="fr")]
    provider = Scripted()
    given: dict[str, Any] = {"bounce_address": "bounces@example.com", "public_url": "https://notify.example.com"}
    world.deliver(ids, provider, **given)
    tokens = Tokens(world.hash_key, **given)
    plain, digest = sorted(provider.taken, key=lambda outgoing: ids.index(outgoing.notification_id))
    assert [tokens.read_return_path(one.return_path or "") for one in (plain, digest)] == [
        (ids[0], 1),
        (ids[1], 1),
    ]
    assert plain.unsubscribe_url is None
    assert digest.unsubscribe_url is not None
    assert digest.text == f"To stop this: {digest.unsubscribe_url}\n"
    ending = tokens.read_link(digest.unsubscribe_url.rpartition("/")[2])
    hash_ = world.hash_key.recipient(Channel.EMAIL, "ann@example.com")
    assert ending == UnsubscribeLink(ids[1], hash_, "digest", "fr", "default")


def test_without_settings_for_it_there_is_neither(world: World) -> None:
    write_template(world.templates, "digest", 'category = "digest"\ntransactional = false')
    provider = Scripted()
    # Under the key that everybody knows there are no links, even with an address for them.
    world.deliver([world.accept(template="digest", context={})], provider, public_url="https://notify.example.com")
    [outgoing] = provider.taken
    assert (outgoing.return_path, outgoing.unsubscribe_url) == (None, None)


def test_what_failed_shows_who_was_called_last(world: World) -> None:
    notification_id = world.accept()
    world.deliver([notification_id], Scripted("first"))
    with transaction(world.engine) as connection:
        connection.execute(text("UPDATE states SET status = 'queued', due_at = now()"))
    world.deliver([notification_id], Scripted("second", error=Rejected("no", reason=Reason.CONTENT_REFUSED)))
    note = world.story(notification_id).notification
    # The id is the first one's, and went with it.
    assert (note.status, note.provider, note.provider_message_id) == ("failed", "second", None)


def test_ids_that_are_not_queued_are_left_alone(world: World) -> None:
    notification_id = world.accept()
    provider = Scripted()
    world.deliver([notification_id], provider)
    assert world.deliver([notification_id], provider) == DeliverySummary()
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
    assert (note.status, note.reason, note.attempt_count) == ("retrying", "lease_expired", 0)


def test_results_wait_for_a_database_that_went_away(world: World) -> None:
    class AwayAtFirst(Ledger):
        tries = 0

        def finish(self, results: Sequence[DeliveryResult]) -> None:
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
        connection.execute(text("UPDATE messages SET expires_at = now() - interval '1 second'"))
    provider = Scripted()
    world.deliver([notification_id], provider)
    assert provider.taken == []
    assert world.story(notification_id).notification.status == "expired"


def test_a_provider_that_fails_most_calls_is_left_alone(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(12)]
    away, well = Scripted("away", error=Unavailable("no connection")), Scripted("well")
    world.deliver(ids[:10], away, well)
    assert (len(away.taken), len(well.taken)) == (10, 10)
    world.deliver(ids[10:], away, well)
    assert (len(away.taken), len(well.taken)) == (10, 12)


def test_a_wrong_password_costs_one_call_and_fails_nothing(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(5)]
    locked_out = Scripted(error=Unavailable("bad password", reason=Reason.PROVIDER_ACCOUNT, code="535"))
    world.deliver(ids[:1], locked_out)
    world.deliver(ids[1:], locked_out)
    assert len(locked_out.taken) == 1
    for notification_id in ids:
        note = world.story(notification_id).notification
        assert (note.status, note.reason) == ("retrying", "provider_account")


def test_one_notification_probes_and_a_success_lets_all_through(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(6)]
    provider = Scripted(error=Unavailable("bad password", reason=Reason.PROVIDER_ACCOUNT))
    world.deliver(ids[:1], provider)
    world.pass_time()
    provider.error = None
    assert world.deliver(ids, provider).sent == 1
    world.pass_time()
    assert world.deliver(ids, provider).sent == 5


def test_an_outage_costs_what_waits_one_turn_until_its_end(world: World) -> None:
    provider = Scripted(error=Unavailable("no connection"))
    world.deliver([world.accept(f"first{n}") for n in range(10)], provider)
    ids = [world.accept(f"k{n}") for n in range(20)]
    world.deliver(ids, provider)
    assert len(provider.taken) == 10
    kinds = [event.status for event in world.story(ids[0]).events]
    assert kinds == ["queued", "sending", "retrying"]
    provider.error = None
    book = CircuitRepository(world.engine)
    woken = 0
    for expected in (WOKEN_TO_PROBE, 20 - 1):
        with transaction(world.engine) as connection:
            # The pause of the circuit is over, and nobody has just fallen asleep.
            connection.execute(text("UPDATE circuits SET open_until = now() WHERE open_until IS NOT NULL"))
            connection.execute(text("UPDATE states SET updated_at = updated_at - interval '1 minute'"))
        assert book.wake({Channel.EMAIL: ["first"]}) == expected
        due = world.ledger.take_due(limit=100, unknown_after_seconds=30)
        woken += world.deliver([one.id for one in due], provider).sent
    assert woken == 20
    assert {world.story(one).notification.status for one in ids} == {"sent"}


def test_a_failed_probe_keeps_the_others_waiting(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(4)]
    provider = Scripted(error=Unavailable("bad password", reason=Reason.PROVIDER_ACCOUNT))
    world.deliver(ids[:1], provider)
    world.pass_time()
    world.deliver(ids, provider)
    assert len(provider.taken) == 2
    assert openings(world) == 2


def test_a_paused_provider_is_not_called(world: World) -> None:
    HealthRepository(world.engine).set_paused("first", True)
    notification_id = world.accept()
    first = Scripted("first")
    world.deliver([notification_id], first)
    assert first.taken == []
    assert world.story(notification_id).notification.reason == "operator"


def test_what_is_over_the_rate_waits_and_fails_nothing(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(30)]
    structure = Structure(
        senders={"default": Sender(email="Shop <shop@example.com>", rate_per_second=10)},
    )
    summary = world.deliver(ids, Scripted(), structure=structure)
    assert 17 <= summary.sent <= 20
    waiting = [world.story(id_).notification for id_ in ids if world.story(id_).notification.status != "sent"]
    assert {(note.status, note.reason) for note in waiting} == {("retrying", "rate_limited")}
    assert all(note.due_at is not None and note.attempt_count == 0 for note in waiting)


def test_who_waits_for_long_asks_again_before_it_expires_and_within_ten_minutes(world: World) -> None:
    structure = Structure(senders={"default": Sender(email="Shop <shop@example.com>", rate_per_second=0.01)})
    expires_at = datetime.now(UTC) + timedelta(seconds=200)
    ids = [world.accept(f"k{n}", expires_at=expires_at if n % 2 else None) for n in range(20)]
    RateLimitRepository(world.engine).take_turns("sender:email:default", [1], per_second=0.01, at_most_seconds=1)
    assert world.deliver(ids, Scripted(), structure=structure).sent == 0
    waiting = [world.story(id_).notification for id_ in ids]
    assert {note.status for note in waiting} == {"retrying"}
    due = [(note.due_at or expires_at, note.expires_at) for note in waiting]
    assert all(due_at < (expires or datetime.now(UTC) + timedelta(seconds=601)) for due_at, expires in due)


def test_three_workers_keep_to_fifty_calls_a_second(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(180)]
    structure = Structure(senders={"default": Sender(email="Shop <shop@example.com>", rate_per_second=50)})
    moments: list[float] = []
    provider = Scripted(before=lambda _: moments.append(time.monotonic()))

    def work(mine: list[UUID]) -> None:
        while mine:
            world.deliver(mine, provider, structure=structure)
            with transaction(world.engine) as connection:
                waiting = text("SELECT id FROM notifications WHERE status <> 'sent'")
                found = set(connection.execute(waiting).scalars())
                mine = [id_ for id_ in mine if id_ in found]
            world.ledger.take_due(limit=1000, unknown_after_seconds=30)

    threads = [threading.Thread(target=work, args=(ids[n::3],)) for n in range(3)]
    with Stalls() as stalls:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(moments) == 180
    # A call of a machine that stands still comes so much later than it was let go.
    assert busiest(moments, 1.0) <= 52 + 50 * stalls.longest


class AtOnce(RateLimiter):
    """Turns are counted and not waited for."""

    async def wait(self, permit: Permit) -> None:
        """Calls begin before their turns."""


def test_a_thousand_that_wait_under_a_limit_are_taken_up_about_twice(world: World) -> None:
    """In bulk, by tasks of 100, each second those that are due. Many are cancelled meanwhile."""
    messages = [
        check(
            Message(
                idempotency_key=f"k{n}",
                producer="shop",
                to="ann@example.com",
                template="hello",
                context={"name": "A"},
            ),
            Channel.EMAIL,
            Lane.BULK,
        )
        for n in range(1000)
    ]
    new = [
        NewNotification(message, Channel.EMAIL, Lane.BULK, "v1", OnUnknown.HOLD, position)
        for position, message in enumerate(messages)
    ]
    ids = [answer.id for answer in world.ledger.accept(new)]
    structure = Structure(senders={"default": Sender(email="Shop <shop@example.com>", rate_per_second=50)})
    world.limiter = AtOnce(
        RateLimitRepository(world.engine), Settings().model_copy(update={"structure": structure})
    )
    # A second passes.
    passes = (
        "UPDATE states SET due_at = due_at - interval '1 second' WHERE status = 'retrying'",
        "UPDATE rate_slots SET next_at = next_at - interval '1 second', "
        "bulk_until = bulk_until - interval '1 second'",
    )
    cancel = text(
        "UPDATE states SET status = 'cancelled', due_at = NULL WHERE id = ANY(:ids) AND status <> 'sent'"
    )
    due = ids
    for _ in range(30):
        for begin in range(0, len(due), 100):
            world.deliver(due[begin : begin + 100], Scripted(), structure=structure)
        with transaction(world.engine) as connection:
            connection.execute(cancel, {"ids": ids[::10]})
            for statement in passes:
                connection.execute(text(statement))
        due = [one.id for one in world.ledger.take_due(limit=1000, unknown_after_seconds=30)]
    with transaction(world.engine) as connection:
        statuses = text("SELECT status, count(*), sum(claim), max(claim) FROM states GROUP BY 1")
        found = {row.status: row for row in connection.execute(statuses)}
    assert set(found) == {"sent", "cancelled"}
    assert sum(row.sum for row in found.values()) <= 2.3 * 1000
    assert max(row.max for row in found.values()) <= 5


def busiest(moments: Sequence[float], seconds: float) -> int:
    """The most in any window of so many seconds."""
    return max(sum(start <= moment < start + seconds for moment in moments) for start in moments)


def test_turns_that_a_process_missed_while_it_stood_still_are_not_made_up_for(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(40)]
    structure = Structure(senders={"default": Sender(email="Shop <shop@example.com>", rate_per_second=50)})
    moments: list[float] = []

    def note(_: Outgoing) -> None:
        moments.append(time.monotonic())
        if len(moments) == 5:
            # Nothing runs on the event loop meanwhile: twenty turns pass.
            time.sleep(0.4)

    with Stalls() as stalls:
        world.deliver(ids, Scripted(before=note), structure=structure)
    assert len(moments) == 40
    # Ten, and what is not yet too late.
    assert busiest(moments, 0.2) <= 10 + 3 + 50 * stalls.longest


def test_turns_that_pass_while_every_slot_is_taken_are_not_made_up_for(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(40)]
    structure = Structure(senders={"default": Sender(email="Shop <shop@example.com>", rate_per_second=50)})
    moments: list[float] = []

    class SlowAtFirst(Scripted):
        async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
            moments.append(time.monotonic())
            if len(moments) == 1:
                await asyncio.sleep(0.4)
            return await super().send(outgoing, deadline_seconds=deadline_seconds)

    with Stalls() as stalls:
        summary = world.deliver(ids, SlowAtFirst(), structure=structure, worker_calls=1)
    assert summary.sent == len(moments) == 40
    assert busiest(moments, 0.2) <= 10 + 3 + 50 * stalls.longest


def test_without_a_new_turn_a_late_call_is_not_made_and_nothing_is_lost(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(10)]
    structure = Structure(senders={"default": Sender(email="Shop <shop@example.com>", rate_per_second=50)})

    class AwayRepository(RateLimitRepository):
        """Its database is there for the first turns, and away for those instead of missed ones."""

        def take_turns(self, *_: Any, **__: Any) -> list[Turn]:
            raise ServiceUnavailable("the database is away")

    world.limiter = RateLimiter(
        AwayRepository(world.engine), Settings().model_copy(update={"structure": structure})
    )
    provider = Scripted(before=lambda _: time.sleep(0.3))
    summary = world.deliver(ids, provider, structure=structure)
    notes = [world.story(id_).notification for id_ in ids]
    assert 0 < summary.sent == len(provider.taken) < 10
    assert {(note.status, note.reason) for note in notes if note.status != "sent"} == {
        ("retrying", "lease_expired")
    }


def test_one_recipient_gets_no_more_than_the_cap(world: World) -> None:
    notification_id = world.accept()
    cap = Structure.model_validate(
        {
            "senders": {"default": {"email": "s@example.com"}},
            "caps": {"recipient": {"count": 1, "per_seconds": 3600}},
        }
    )
    second = world.accept("second")
    assert world.deliver([notification_id, second], Scripted(), structure=cap).sent == 1
    statuses = {world.story(id_).notification.reason for id_ in (notification_id, second)}
    assert statuses == {None, "rate_limited"}


def test_failover_counts_once_under_caps_and_quotas(world: World) -> None:
    limited = Structure.model_validate(
        {
            "senders": {"default": {"email": "s@example.com"}},
            "caps": {"recipient": {"count": 1, "per_seconds": 3600}},
            "quotas": {"shop": {"email": 2}},
        }
    )
    ids = [world.accept(f"k{n}", to=f"ann{n}@example.com") for n in range(2)]
    away = Scripted("first", error=Throttled("slow"))
    assert world.deliver(ids, away, Scripted("second"), structure=limited).sent == 2


def test_a_producer_near_its_quota_is_warned_and_over_it_waits(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(6)]
    quota = Structure.model_validate(
        {"senders": {"default": {"email": "s@example.com"}}, "quotas": {"shop": {"email": 5}}}
    )
    assert world.deliver(ids, Scripted(), structure=quota).sent == 5
    events = [event for id_ in ids for event in world.story(id_).events if event.kind == "quota"]
    assert [event.detail for event in events] == [
        "producer shop has used 4 of its 5 email today",
        "producer shop has used 5 of its 5 email today",
    ]


@dataclass
class Searchable(Scripted):
    """A provider that can be asked what it has."""

    has: Receipt | None = None
    asked: list[Sought] = field(default_factory=list)

    async def find(self, sought: Sought, *, deadline_seconds: float) -> Sequence[Receipt]:
        self.asked.append(sought)
        return [self.has] if self.has else []


def unknown(world: World, provider: Provider, policy: OnUnknown = OnUnknown.HOLD, key: str = "k") -> UUID:
    notification_id = world.accept(key, on_unknown=policy)
    world.deliver([notification_id], provider)
    assert world.story(notification_id).notification.status == "unknown"
    return notification_id


def test_a_message_that_the_provider_has_is_sent(world: World) -> None:
    provider = Searchable(error=OutcomeUnknown("lost"), has=Receipt("SM1", "delivered"))
    notification_id = unknown(world, provider)
    assert world.reconcile([notification_id], provider) == 1
    story = world.story(notification_id)
    assert (story.notification.status, story.notification.provider_message_id) == ("sent", "SM1")
    assert story.attempts[0].outcome == "accepted"
    assert provider.asked[0].text == "Hello Ann,\nyours, the shop.\n"


def test_what_the_provider_does_not_have_is_still_held_if_the_template_says_so(world: World) -> None:
    provider = Searchable(error=OutcomeUnknown("lost"))
    notification_id = unknown(world, provider)
    assert world.reconcile([notification_id], provider) == 0
    note = world.story(notification_id).notification
    assert (note.status, note.due_at) == ("unknown", None)
    assert "does not have it" in (note.detail or "")


@pytest.mark.parametrize(("policy", "status"), [(OnUnknown.HOLD, "unknown"), (OnUnknown.RESEND, "retrying")])
def test_policy_decides_where_nobody_can_be_asked(world: World, policy: OnUnknown, status: str) -> None:
    provider = Scripted(error=OutcomeUnknown("lost"))
    notification_id = unknown(world, provider, policy)
    world.reconcile([notification_id], provider)
    assert world.story(notification_id).notification.status == status


def test_a_provider_that_cannot_tell_now_is_asked_again(world: World) -> None:
    class Busy(Searchable):
        async def find(self, sought: Sought, *, deadline_seconds: float) -> Sequence[Receipt]:
            raise Unavailable("not now")

    provider = Busy(error=OutcomeUnknown("lost"))
    notification_id = unknown(world, provider)
    world.reconcile([notification_id], provider)
    note = world.story(notification_id).notification
    assert note.status == "unknown"
    assert note.due_at is not None


@dataclass
class Hanging(Searchable):
    """It does not answer while it is away."""

    is_away: bool = True

    async def find(self, sought: Sought, *, deadline_seconds: float) -> Sequence[Receipt]:
        await super().find(sought, deadline_seconds=deadline_seconds)
        if self.is_away:
            raise Unavailable("no answer in time")
        return []


def test_a_provider_that_does_not_answer_is_asked_once_and_then_about_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Hanging(error=OutcomeUnknown("lost"))
    ids = [unknown(world, provider, key=f"k{number}") for number in range(3)]
    reconciler = world.reconciler(provider)
    for _ in range(3):
        reconciler.reconcile(ids)
    assert [sought.notification_id for sought in provider.asked] == ids[:1]
    monkeypatch.setattr(reconcile, "AWAY_SECONDS", 0.0)
    reconciler._away.clear()
    provider.is_away = False
    reconciler.reconcile(ids)
    # The first one again, after the others: it may have been the cause.
    assert [sought.notification_id for sought in provider.asked[1:]] == [*ids[1:], ids[0]]


def test_look_ups_take_a_quarter_of_the_threads_and_end_with_the_process(world: World) -> None:
    asked_by_other: list[int] = []

    class Slow(Searchable):
        async def find(self, sought: Sought, *, deadline_seconds: float) -> Sequence[Receipt]:
            self.asked.append(sought)
            # Meanwhile another thread has a task.
            asked_by_other.append(await asyncio.to_thread(reconciler.reconcile, ids))
            stop.set()
            return []

    provider, stop = Slow(error=OutcomeUnknown("lost")), Event()
    ids = [unknown(world, provider, key=f"k{number}") for number in range(2)]
    reconciler = world.reconciler(provider, stop=stop, worker_threads=4)
    reconciler.reconcile(ids)
    assert (len(provider.asked), asked_by_other) == (1, [0])


def test_what_is_rendered_is_sent_before_the_rest_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long all of them take."""
    order: list[str] = []
    prepare = Composer.prepare

    def rendered(composer: Composer, *arguments: Any) -> Any:
        order.append("rendered")
        return prepare(composer, *arguments)

    monkeypatch.setattr(Composer, "prepare", rendered)
    monkeypatch.setattr(deliver, "RENDER_SECONDS", -1.0)
    provider = Scripted(before=lambda _: order.append("sent"))
    ids = [world.accept(f"k{number}") for number in range(3)]
    assert world.deliver(ids, provider).sent == 3
    assert order == ["rendered", "sent"] * 3
    # What was only read is left to the sweep if that takes long, and is nobody's until then.
    monkeypatch.setattr(deliver, "READ_SECONDS", -1.0)
    ids = [world.accept(f"l{number}") for number in range(3)]
    assert world.deliver(ids, provider).claimed == 1
    assert [world.story(one).notification.status for one in ids] == ["sent", "queued", "queued"]
    world.pass_time()
    assert world.deliver(ids, provider).sent == 2


def test_what_cannot_go_on_to_its_next_provider_is_given_back(world: World) -> None:
    class AwayAtTheSecondRound(RateLimiter):
        rounds = 0

        def permits(self, deliveries: Any) -> Any:
            self.rounds += 1
            if self.rounds == 2:
                raise ServiceUnavailable("the database cannot be used now")
            return super().permits(deliveries)

    notification_id = world.accept()
    world.limiter = AwayAtTheSecondRound(RateLimitRepository(world.engine), Settings())
    with pytest.raises(ServiceUnavailable):
        world.deliver([notification_id], Scripted("first", error=Unavailable("away")), Scripted("second"))
    story = world.story(notification_id)
    assert (story.notification.status, story.notification.reason) == ("retrying", "technical_error")
    assert [attempt.outcome for attempt in story.attempts] == ["unavailable"]


def test_a_batch_that_an_account_refuses_opens_its_circuit_once(world: World) -> None:
    ids = [world.accept(f"k{n}") for n in range(20)]
    world.deliver(ids, Scripted(error=Unavailable("bad password", reason=Reason.PROVIDER_ACCOUNT)))
    assert openings(world) == 1
