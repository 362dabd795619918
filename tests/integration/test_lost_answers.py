"""Answers of PostgreSQL get lost, or it refuses a result: nothing is sent twice, and nobody is taken for dead."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, event, text

from notifier.config.settings import Settings
from notifier.delivery import DeliverySummary
from notifier.delivery.delivery import Permit
from notifier.delivery.rate_limiter import RateLimiter
from notifier.domain.errors import OutcomeUnknown, Rejected, ServiceUnavailable, Throttled, Unavailable
from notifier.domain.statuses import OnUnknown, Reason, Status
from notifier.providers.base import Outgoing, Receipt, Sought
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.provider_reports import NewReport, ProviderReportRepository, RecordedReport
from notifier.store.rate_limits import RateLimitRepository
from notifier.store.records import DeliveryResult, NewAttempt, NotificationToSend
from notifier.store.search import Audit
from tests.integration.test_deliverer import Scripted, World
from tests.support.lost_answers import LossyWay, lossy_way
from tests.support.templates import write_templates

#: Words of the statements; of those that begin attempts, and of the one that looks for what was begun.
READ, CLAIM, FINISH = ("AS is_new\nFROM (",), ("is_new::int",), ("completed AS",)
START = ("INSERT INTO attempts", "a.provider = r.provider")


@pytest.fixture
def world(database_url: str, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Iterator[World]:
    engine = make_engine(database_url)
    yield World(Ledger(engine), Audit(engine), engine, write_templates(tmp_path / "templates"), loop)
    engine.dispose()


@pytest.fixture
def way(database_url: str, loop: asyncio.AbstractEventLoop) -> Iterator[LossyWay]:
    with lossy_way(database_url, loop) as way:
        yield way


@pytest.fixture
def lossy(way: LossyWay) -> Iterator[Ledger]:
    """Its way is lossy."""
    engine = make_engine(way.url)
    yield Ledger(engine)
    engine.dispose()


def crashes(world: World, notification_id: UUID) -> int:
    with transaction(world.engine) as connection:
        found = connection.execute(
            text("SELECT crash_count FROM notifications WHERE id = :id"), {"id": notification_id}
        )
        return int(found.scalar_one())


def attempts(world: World, notification_id: UUID) -> list[tuple[int, str | None, str | None]]:
    return [(one.number, one.outcome, one.reason) for one in world.story(notification_id).attempts]


@pytest.mark.parametrize(
    ("words", "is_redelivered"),
    [(READ, False), (START, False), (FINISH, False), (CLAIM, True), (START, True), (FINISH, True)],
)
def test_three_lost_answers_in_a_row_cost_nothing(
    world: World, way: LossyWay, lossy: Ledger, words: str, is_redelivered: bool
) -> None:
    ids = [world.accept(f"k{n}") for n in range(3)]
    way.lose(*words, times=3)
    provider = Scripted()
    summary = world.deliver(ids, provider, ledger=lossy, is_redelivered=is_redelivered)
    assert summary == DeliverySummary(3, 3, 0)
    assert way.lost == 3
    assert len(provider.taken) == 3
    for id_ in ids:
        assert attempts(world, id_) == [(1, "accepted", None)]
        assert [event.status for event in world.story(id_).events] == ["queued", "sending", "sent"]
        assert crashes(world, id_) == 0


def test_the_next_provider_is_called_once_though_every_answer_is_lost_once(
    world: World, way: LossyWay, lossy: Ledger
) -> None:
    id_ = world.accept()
    first, second = Scripted("first", error=Unavailable("away")), Scripted("second")
    first.before = lambda _: way.lose("UPDATE attempts", times=1)
    second.before = lambda _: way.lose(*FINISH, times=1)
    way.lose(*START, times=1)
    assert world.deliver([id_], first, second, ledger=lossy).sent == 1
    assert way.lost == 3
    assert (len(first.taken), len(second.taken)) == (1, 1)
    assert attempts(world, id_) == [(1, "unavailable", "provider_unavailable"), (2, "accepted", None)]


def test_claims_of_which_no_worker_ever_heard_make_no_poison(world: World, way: LossyWay, lossy: Ledger) -> None:
    id_ = world.accept()
    for _ in range(4):
        way.lose(*CLAIM, times=1)
        with pytest.raises(ServiceUnavailable):
            lossy.claim([id_], lease_seconds=60)
        assert world.story(id_).notification.status == "sending"
        world.pass_time()
    assert (world.story(id_).notification.status, crashes(world, id_)) == ("queued", 1)
    assert world.deliver([id_], Scripted()).sent == 1


def test_a_claim_is_found_by_its_token_and_by_no_other(world: World) -> None:
    id_, token = world.accept(), uuid4()
    [first] = world.ledger.claim([id_], lease_seconds=60, token=token)
    assert world.ledger.claim([id_], lease_seconds=60, token=uuid4(), again=True) == []
    [again] = world.ledger.claim([id_], lease_seconds=60, token=token, again=True)
    assert again.claim == first.claim
    assert [event.status for event in world.story(id_).events] == ["queued", "sending"]


def test_a_claim_is_not_repeated_once_it_has_expired(world: World) -> None:
    id_, token = world.accept(), uuid4()
    world.ledger.claim([id_], lease_seconds=60, token=token)
    with transaction(world.engine) as connection:
        connection.execute(text("UPDATE messages SET expires_at = now() - interval '1 second'"))
    assert world.ledger.claim([id_], lease_seconds=60, token=token, again=True) == []
    assert [event.status for event in world.story(id_).events] == ["queued", "sending", "expired"]


def test_an_attempt_is_begun_once_however_often_it_is_asked_for(world: World) -> None:
    [claim] = world.ledger.claim([world.accept()], lease_seconds=60)
    wanted = [NewAttempt(claim, "first")]
    assert set(world.ledger.start_attempts(wanted, margin_seconds=1)) == {claim.id}
    # As one that was under way longest, and comes last.
    assert world.ledger.start_attempts(wanted, margin_seconds=1) == {}
    assert world.ledger.start_attempts(wanted, margin_seconds=1, again=True)[claim.id].number == 1
    # Of another provider it is not.
    assert world.ledger.start_attempts([NewAttempt(claim, "second")], margin_seconds=1, again=True) == {}
    assert attempts(world, claim.id) == [(1, None, None)]


@pytest.mark.parametrize("is_redelivered", [False, True])
def test_what_may_have_been_begun_and_is_too_late_is_closed_as_not_called(
    world: World, way: LossyWay, lossy: Ledger, is_redelivered: bool
) -> None:
    id_ = world.accept(on_unknown=OnUnknown.HOLD)
    way.lose(*START, times=1, then_refuse=True)
    provider = Scripted()
    healing = threading.Timer(1.5, way.heal)
    healing.start()
    with contextlib.suppress(ServiceUnavailable):
        # A second for the beginning, and no more.
        short: dict[str, Any] = {"lease_seconds": 6.2, "call_deadline_seconds": 0.2}
        world.deliver([id_], provider, ledger=lossy, is_redelivered=is_redelivered, **short)
    healing.join()
    assert provider.taken == []
    story = world.story(id_)
    # The answer came when there was no time for the call any more, or never.
    assert story.notification.status == "retrying"
    assert story.notification.reason in ("lease_expired", "technical_error")
    assert attempts(world, id_) == [(1, "unavailable", "lease_expired")]
    assert "not called" in (story.attempts[0].detail or "")
    world.pass_time()
    [claim] = world.ledger.claim([id_], lease_seconds=60)
    # No call was made for it, so none counts.
    assert (claim.attempt_count, claim.tries) == (1, 0)


def test_what_was_claimed_with_its_attempt_is_found_by_its_token_and_by_no_other(world: World) -> None:
    [new] = world.ledger.read_queued([world.accept()]).new
    wanted, mine, others = [NewAttempt(new, "first")], uuid4(), uuid4()
    given: dict[str, Any] = {"lease_seconds": 60, "margin_seconds": 1}
    assert set(world.ledger.claim_and_start(wanted, token=mine, **given)) == {new.id}
    assert world.ledger.claim_and_start(wanted, token=others, again=True, **given) == {}
    world.ledger.give_back([not_called(new)], token=others)
    assert attempts(world, new.id) == [(1, None, None)]
    again = world.ledger.claim_and_start(wanted, token=mine, again=True, **given)[new.id]
    assert again is not None
    assert (again.number, again.claim) == (1, new.claim)
    world.ledger.give_back([not_called(new)], token=mine)
    assert attempts(world, new.id) == [(1, "unavailable", "lease_expired")]
    assert [event.status for event in world.story(new.id).events] == ["queued", "sending", "retrying"]


def not_called(claim: NotificationToSend) -> DeliveryResult:
    detail = "not called: a test"
    return DeliveryResult(
        claim.id,
        claim.claim,
        Status.RETRYING,
        reason=Reason.LEASE_EXPIRED,
        detail=detail,
        due_in_seconds=1,
        number=1,
    )


def test_what_was_taken_for_unknown_meanwhile_was_still_not_called(world: World) -> None:
    id_ = world.accept(on_unknown=OnUnknown.HOLD)
    [claim] = world.ledger.claim([id_], lease_seconds=60)
    world.ledger.start_attempts([NewAttempt(claim, "first")], margin_seconds=1)
    world.pass_time()
    assert world.story(id_).notification.status == "unknown"
    for _ in range(2):
        world.ledger.give_back([not_called(claim)])
    assert attempts(world, id_) == [(1, "unavailable", "lease_expired")]
    statuses = [event.status for event in world.story(id_).events]
    assert statuses == ["queued", "sending", "unknown", "retrying"]


def test_an_attempt_of_a_later_claim_is_not_closed(world: World) -> None:
    id_ = world.accept()
    [old] = world.ledger.claim([id_], lease_seconds=60)
    world.pass_time()
    [new] = world.ledger.claim([id_], lease_seconds=60)
    world.ledger.start_attempts([NewAttempt(new, "first")], margin_seconds=1)
    world.ledger.give_back([not_called(old)])
    assert attempts(world, id_) == [(1, None, None)]
    assert world.story(id_).notification.status == "sending"


def test_nobody_is_called_on_a_loop_that_has_ended_and_nothing_stays_open(world: World) -> None:
    id_ = world.accept()
    world.loop = asyncio.new_event_loop()
    world.loop.close()
    with pytest.raises(RuntimeError):
        world.deliver([id_], Scripted())
    assert world.story(id_).notification.status == "retrying"
    assert attempts(world, id_) == [(1, "unavailable", "lease_expired")]


def test_a_call_whose_turn_fails_is_not_made_and_the_others_are(world: World) -> None:
    class Broken(RateLimiter):
        calls = 0

        async def wait(self, permit: Permit) -> None:
            self.calls += 1
            if self.calls == 2:
                raise ZeroDivisionError
            await super().wait(permit)

    ids = [world.accept(f"k{n}") for n in range(4)]
    world.limiter = Broken(RateLimitRepository(world.engine), Settings())
    provider = Scripted()
    assert world.deliver(ids, provider).sent == len(provider.taken) == 3
    found = sorted(attempts(world, id_)[0][1:] for id_ in ids if world.story(id_).notification.status != "sent")
    assert found == [("unavailable", "lease_expired")]


def forget_statements(engine: Engine) -> None:
    """As behind a pooler that gives every transaction another session."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.prepare_threshold = 0

    @event.listens_for(engine, "checkout")
    def checkout(connection: Any, _record: object, _proxy: object) -> None:
        # Past the driver, which does not learn of it.
        connection.pgconn.exec_(b"DEALLOCATE ALL")


def test_nothing_is_sent_twice_where_prepared_statements_get_lost(world: World, database_url: str) -> None:
    engine = make_engine(database_url)
    forget_statements(engine)
    ids = [world.accept(f"k{n}") for n in range(12)]
    provider = Scripted()
    for start in range(0, 12, 3):
        assert world.deliver(ids[start : start + 3], provider, ledger=Ledger(engine)).sent == 3
    engine.dispose()
    assert len(provider.taken) == 12
    assert {tuple(attempts(world, id_)) for id_ in ids} == {((1, "accepted", None),)}


def test_a_session_without_our_statement_is_given_up(database_url: str) -> None:
    engine = make_engine(database_url, pool_size=1)
    forget_statements(engine)

    def ask() -> int:
        with transaction(engine) as connection:
            return int(connection.execute(text("SELECT 1")).scalar_one())

    assert ask() == 1
    with pytest.raises(ServiceUnavailable):
        ask()
    assert ask() == 1
    engine.dispose()


class Odd(Scripted):
    """Answers one of its messages as nobody does."""

    def __init__(self, answer: Callable[[], Receipt]) -> None:
        super().__init__()
        self.answer = answer

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        receipt = await super().send(outgoing, deadline_seconds=deadline_seconds)
        return self.answer() if outgoing.to == "odd@example.com" else receipt


def raises(error: Exception, **attributes: Any) -> Callable[[], Receipt]:
    def answer() -> Receipt:
        for name, value in attributes.items():
            setattr(error, name, value)
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "status", "outcome"),
    [
        (lambda: Receipt("m1", "250 a forbidden word"), "sent", "accepted"),
        (lambda: Receipt(17, 250), "sent", "accepted"),  # type: ignore[arg-type]
        (lambda: Receipt("m" * 100_000, "\ud800\x00"), "sent", "accepted"),
        (raises(Rejected("a forbidden word", reason=Reason.CONTENT_REFUSED)), "failed", "rejected"),
        (
            raises(Rejected("gone", reason=Reason.INVALID_RECIPIENT, suppress=True), reason=["odd"]),
            "failed",
            "rejected",
        ),
        (raises(Rejected("no", reason=Reason.CONTENT_REFUSED), detail=object()), "failed", "rejected"),
        (raises(Unavailable("no"), outcome="exploded"), "retrying", "unknown"),
        (raises(Unavailable("no"), code=42, subject=object()), "retrying", "unavailable"),
        (raises(Throttled("slow", retry_after_seconds=float("nan"))), "retrying", "throttled"),
        (raises(Throttled("slow"), retry_after_seconds="soon"), "retrying", "throttled"),
    ],
)
def test_an_answer_that_cannot_be_recorded_keeps_no_other(
    world: World, answer: Callable[[], Receipt], status: str, outcome: str
) -> None:
    with transaction(world.engine) as connection:
        rule = "ALTER TABLE attempts ADD CONSTRAINT clean CHECK (detail NOT LIKE '%forbidden%')"
        connection.execute(text(rule))
    ids = [
        world.accept(f"k{n}", to=to) for n, to in enumerate(("a@example.com", "odd@example.com", "b@example.com"))
    ]
    provider = Odd(answer)
    world.deliver(ids, provider)
    assert len(provider.taken) == 3
    assert [world.story(id_).notification.status for id_ in ids] == ["sent", status, "sent"]
    assert [attempts(world, id_)[0][1] for id_ in ids] == ["accepted", outcome, "accepted"]


@pytest.mark.parametrize("longest", ["200ms", "1s"], ids=["ended by its time", "ended by the lock"])
def test_rows_that_somebody_holds_keep_no_other_result(world: World, database_url: str, longest: str) -> None:
    engine = make_engine(database_url)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.execute(f"SET statement_timeout = '{longest}'")
        connection.commit()

    ids = [world.accept(f"k{n}") for n in range(6)]
    held, free = ids[:4], ids[4:]
    holder = world.engine.connect()

    def hold(outgoing: Outgoing) -> None:
        if outgoing.notification_id in held:
            lock = text("SELECT 1 FROM notifications WHERE id = :id FOR UPDATE")
            holder.execute(lock, {"id": outgoing.notification_id})

    def let_go_when_the_others_are_sent() -> None:
        while {world.story(id_).notification.status for id_ in free} != {"sent"}:
            threading.Event().wait(0.05)
        holder.rollback()

    provider = Scripted(before=hold)
    watcher = threading.Thread(target=let_go_when_the_others_are_sent)
    watcher.start()
    assert world.deliver(ids, provider, ledger=Ledger(engine)).sent == 6
    watcher.join()
    holder.close()
    engine.dispose()
    assert {tuple(attempts(world, id_)) for id_ in ids} == {((1, "accepted", None),)}


@dataclass
class Searchable(Scripted):
    """Whether it has a message, it says of one as nobody does."""

    odd: UUID | None = None

    async def find(self, sought: Sought, *, deadline_seconds: float) -> Sequence[Receipt]:
        id_: Any = 17 if sought.notification_id == self.odd else str(sought.notification_id)
        return [Receipt(id_, "")]


def test_a_look_up_that_cannot_be_recorded_keeps_no_other(world: World) -> None:
    ids = [world.accept(f"k{n}", to=f"user{n}@example.com", on_unknown=OnUnknown.HOLD) for n in range(3)]
    provider = Searchable(error=OutcomeUnknown("lost"), odd=ids[0])
    world.deliver(ids, provider)
    assert world.reconcile(ids, provider) == 2
    notes = [world.story(id_).notification for id_ in ids]
    assert [note.status for note in notes] == ["unknown", "sent", "sent"]
    # It is asked about again.
    assert notes[0].due_at is not None


def test_a_report_whose_answer_is_lost_is_recorded_once(world: World, way: LossyWay) -> None:
    id_ = world.accept()
    [claim] = world.ledger.claim([id_], lease_seconds=60)
    world.ledger.start_attempts([NewAttempt(claim, "first")], margin_seconds=1)
    engine = make_engine(way.url)
    way.lose("left_open AS", times=1)
    report = NewReport(id_, 1, ["first"], "m1", "delivered", Status.DELIVERED)
    assert ProviderReportRepository(engine).record(report) is RecordedReport.REPEATED
    engine.dispose()
    assert way.lost == 1
    assert world.story(id_).notification.status == "delivered"
    assert [event.kind for event in world.story(id_).events].count("provider") == 1


def test_what_is_held_is_not_held_again(world: World) -> None:
    id_ = world.accept(on_unknown=OnUnknown.HOLD)
    [claim] = world.ledger.claim([id_], lease_seconds=60)
    world.ledger.start_attempts([NewAttempt(claim, "first")], margin_seconds=1)
    world.pass_time()
    for _ in range(2):
        world.ledger.settle_unknown([(id_, claim.claim, False, "held")])
    assert [event.kind for event in world.story(id_).events].count("held") == 1
