"""Operators' actions on a real Postgres: what they move and what they leave, at once, interrupted, repeated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.broker.dead_letters import Raw
from notifier.domain.errors import Fault, InvalidMessage, ServiceUnavailable
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane, OnUnknown, Reason, Status, may_follow
from notifier.operations import (
    CANCELLABLE,
    RETRYABLE,
    ActionCounts,
    ActionResult,
    Operations,
    RejectedSelection,
    Replays,
    Resolution,
    Selection,
    WrongSelection,
)
from notifier.store.attachments import AttachmentRepository, NewAttachment
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.operator_actions import PAGE, Move, OperatorActions
from notifier.store.records import DeliveryResult, NewAttempt, NewNotification, NewRejection
from notifier.store.rejected import Rejections
from notifier.store.search import Audit, Filter
from notifier.store.stuck import Cause, Lateness
from tests.support.columns import set_columns
from tests.waiting import patient, wait_until

SOON = timedelta(minutes=5)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    return Ledger(engine)


@pytest.fixture
def audit(engine: Engine) -> Audit:
    return Audit(engine)


@pytest.fixture
def operator_actions(engine: Engine) -> OperatorActions:
    return OperatorActions(engine)


@pytest.fixture
def operations(engine: Engine, operator_actions: OperatorActions) -> Operations:
    return Operations(operator_actions, Lateness(engine))


@pytest.fixture
def replays(engine: Engine, operator_actions: OperatorActions) -> Replays:
    return Replays(operator_actions, Rejections(engine))


def accept(ledger: Ledger, count: int = 1, **fields: Any) -> list[UUID]:
    given = {"producer": "shop", "to": "ann@example.com", "template": "receipt", **fields}
    new = [
        NewNotification(Message(id=new_id(), **given), Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.HOLD, position)
        for position in range(count)
    ]
    return [answer.id for answer in ledger.accept(new)]


def become(engine: Engine, status: Status, ids: Sequence[UUID], **columns: Any) -> None:
    """Put them where they would come by way of many attempts."""
    with transaction(engine) as connection:
        set_columns(connection, ids, **{"status": status, "due_at": None, **columns})


@pytest.fixture
def make(ledger: Ledger, engine: Engine) -> Callable[..., list[UUID]]:
    """Makes notifications that are in a status already."""

    def make_notifications(status: Status, count: int = 1, **columns: Any) -> list[UUID]:
        ids = accept(ledger, count)
        become(engine, status, ids, **columns)
        return ids

    return make_notifications


Make = Callable[..., list[UUID]]


def retry(operations: Operations, *ids: UUID, **options: Any) -> ActionResult:
    return operations.retry(Selection(ids), operator="ann", **options)


def in_parallel(*actions: Callable[[], Any]) -> list[Any]:
    start = threading.Barrier(len(actions))
    answers: list[Any] = []

    def run(action: Callable[[], Any]) -> None:
        start.wait(timeout=patient(30))
        answers.append(action())

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def count_of(audit: Audit, status: Status) -> int:
    return sum(found.count for found in audit.count() if found.status == status)


def operator_events(audit: Audit, notification: UUID) -> list[str]:
    return [event.detail or "" for event in audit.story(notification).events if event.kind == "operator"]


@pytest.mark.parametrize("status", RETRYABLE)
def test_a_retry_sets_what_had_ended_going_again(
    operations: Operations, audit: Audit, engine: Engine, ledger: Ledger, make: Make, status: Status
) -> None:
    [wanted] = make(status, reason="provider_rejected", detail="550 no", attempt_count=3, crash_count=2)
    result = retry(operations, wanted, reason="the relay is mended")
    assert (result.matched, result.changed, result.expired, result.skipped) == (1, 1, 0, ())
    found = audit.story(wanted).notification
    assert (found.status, found.reason, found.detail) == ("retrying", "operator", None)
    assert [due.id for due in ledger.take_due(limit=10, unknown_after_seconds=30)] == [wanted]
    with transaction(engine) as connection:
        row = connection.execute(
            text("SELECT crash_count, replayed_attempts, replayed_at IS NOT NULL FROM notifications")
        ).one()
    assert tuple(row) == (0, 3, True)


def test_a_retry_counts_tries_and_deadline_anew(
    operations: Operations, engine: Engine, ledger: Ledger, make: Make
) -> None:
    [wanted] = make(Status.FAILED, attempt_count=40, accepted_at=datetime.now(UTC) - timedelta(days=3))
    retry(operations, wanted)
    ledger.take_due(limit=10, unknown_after_seconds=30)
    [claimed] = ledger.claim([wanted], lease_seconds=60)
    assert (claimed.attempt_count, claimed.tries) == (40, 0)
    assert claimed.age_seconds < 60


def test_a_receipt_that_comes_after_the_retry_keeps_it_from_being_sent_again(
    operations: Operations, ledger: Ledger, audit: Audit, engine: Engine
) -> None:
    [wanted] = accept(ledger)
    [claimed] = ledger.claim([wanted], lease_seconds=60)
    ledger.start_attempts([NewAttempt(claimed, "smtp")], margin_seconds=1)
    become(engine, Status.FAILED, [wanted])
    retry(operations, wanted)
    ledger.finish([DeliveryResult(claimed.id, claimed.claim, Status.SENT, number=1)])
    assert audit.story(wanted).notification.status == "sent"
    assert ledger.take_due(limit=10, unknown_after_seconds=30) == []


def test_a_retry_is_told_on_the_notification_and_in_a_record(
    operations: Operations, operator_actions: OperatorActions, audit: Audit, make: Make
) -> None:
    [wanted] = make(Status.FAILED)
    result = retry(operations, wanted, reason="the relay is mended")
    assert result.record_id is not None
    record = operator_actions.record(result.record_id)
    assert (record.operator, record.action, record.reason) == ("ann", "retry", "the relay is mended")
    assert record.selection == {"ids": [str(wanted)]}
    assert record.result == {"matched": 1, "changed": 1, "expired": 0, "skipped": 0}
    assert record.finished_at is not None
    words = f"retried by ann: the relay is mended (operator record {record.id})"
    assert operator_events(audit, wanted) == [words]
    assert [(event.kind, event.status) for event in audit.story(wanted).events[-2:]] == [
        ("operator", None),
        ("status", "retrying"),
    ]


@pytest.mark.parametrize("status", [status for status in Status if status not in RETRYABLE])
def test_a_retry_leaves_what_may_be_on_its_way_or_arrived(
    operations: Operations, audit: Audit, make: Make, status: Status
) -> None:
    [other] = make(status)
    before = audit.story(other)
    result = retry(operations, other)
    assert (result.changed, len(result.skipped)) == (0, 1)
    assert result.skipped[0].why.startswith(f"{status}: ")
    assert audit.story(other) == before


def test_an_expired_code_is_never_retried(operations: Operations, audit: Audit, make: Make) -> None:
    past, future = datetime.now(UTC) - SOON, datetime.now(UTC) + SOON
    [over] = make(Status.FAILED, expires_at=past)
    [good] = make(Status.FAILED, expires_at=future)
    result = operations.retry(Selection(filter=Filter(status="failed")), operator="ann")
    assert (result.matched, result.changed, result.expired) == (2, 1, 1)
    assert [audit.story(id_).notification.status for id_ in (over, good)] == ["failed", "retrying"]
    assert operator_events(audit, over) == []
    assert "never sent" in retry(operations, over).skipped[0].why


def test_unknown_ids_are_named(operations: Operations) -> None:
    nobody = new_id()
    result = retry(operations, nobody)
    assert [(skipped.id, skipped.why) for skipped in result.skipped] == [
        (str(nobody), "there is no such notification")
    ]


def test_a_filter_takes_only_what_it_finds(operations: Operations, audit: Audit, make: Make) -> None:
    [wanted] = make(Status.FAILED, reason="provider_unavailable", provider="relay-a")
    others = [
        *make(Status.FAILED, reason="invalid_recipient", provider="relay-a"),
        *make(Status.FAILED, reason="provider_unavailable", provider="relay-b"),
        *make(Status.UNDELIVERED, reason="provider_unavailable", provider="relay-a"),
    ]
    chosen = Filter(status="failed", reason="provider_unavailable", provider="relay-a", template="receipt")
    assert operations.retry(Selection(filter=chosen), operator="ann").changed == 1
    assert audit.story(wanted).notification.status == "retrying"
    assert "retrying" not in {audit.story(other).notification.status for other in others}


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(filter=Filter()),
        Selection(filter=Filter(template="receipt")),
        Selection(filter=Filter(status="unknown")),
        Selection((new_id(),), Filter(status="failed")),
    ],
)
def test_a_retry_that_selects_too_much_or_nothing_is_refused(operations: Operations, selection: Selection) -> None:
    with pytest.raises(WrongSelection):
        operations.retry(selection, operator="ann")


def test_a_dry_run_counts_and_writes_nothing(
    operations: Operations, audit: Audit, engine: Engine, make: Make
) -> None:
    make(Status.FAILED, 3, reason="provider_unavailable")
    make(Status.FAILED, 1, reason="technical_error", expires_at=datetime.now(UTC) - SOON)
    result = operations.retry(Selection(filter=Filter(status="failed")), operator="ann", dry_run=True)
    assert (result.record_id, result.matched, result.changed, result.expired) == (None, 4, 3, 1)
    assert [(group.reason, group.count, group.expired) for group in result.groups] == [
        ("provider_unavailable", 3, 0),
        ("technical_error", 1, 1),
    ]
    assert count_of(audit, Status.FAILED) == 4
    with transaction(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM operator_records")).scalar() == 0


def test_a_dry_run_by_ids_says_which_would_be_left(operations: Operations, make: Make) -> None:
    [failed], [sent] = make(Status.FAILED), make(Status.SENT)
    result = retry(operations, failed, sent, dry_run=True)
    assert (result.matched, result.changed) == (2, 1)
    assert [skipped.id for skipped in result.skipped] == [str(sent)]


def due_offsets(engine: Engine, start: datetime) -> list[float]:
    with transaction(engine) as connection:
        found = connection.execute(text("SELECT due_at FROM notifications WHERE due_at IS NOT NULL ORDER BY id"))
        return [round((due - start).total_seconds(), 3) for due in found.scalars()]


def test_a_rate_spaces_retries_across_pages(
    operations: Operations, operator_actions: OperatorActions, engine: Engine, make: Make
) -> None:
    make(Status.FAILED, PAGE + 2)
    result = operations.retry(Selection(filter=Filter(status="failed")), operator="ann", rate_per_second=10)
    assert result.record_id is not None
    offsets = due_offsets(engine, operator_actions.record(result.record_id).at)
    # Nothing is due before its page is written, whenever that was.
    written = offsets[0]
    assert written >= 0
    assert offsets == pytest.approx([max(n / 10, written) for n in range(PAGE + 2)], abs=0.002)


def test_a_run_that_goes_on_keeps_to_its_rate(
    operations: Operations, operator_actions: OperatorActions, engine: Engine, make: Make
) -> None:
    chosen = Selection(filter=Filter(status="failed", template="receipt"))
    make(Status.FAILED, 10)
    first = operations.retry(chosen, operator="ann", rate_per_second=1)
    make(Status.FAILED, 2)
    operations.retry(chosen, operator="bob", rate_per_second=1)
    assert first.record_id is not None
    offsets = due_offsets(engine, operator_actions.record(first.record_id).at)
    assert offsets[-2:] == pytest.approx([10.0, 11.0], abs=0.002)


def test_a_spaced_retry_has_its_deadline_from_when_it_is_due(
    operations: Operations, engine: Engine, make: Make
) -> None:
    ids = make(Status.FAILED, 3)
    retry(operations, *ids, rate_per_second=0.01)
    with transaction(engine) as connection:
        query = "SELECT bool_and(replayed_at = due_at) FROM notifications"
        assert connection.execute(text(query)).scalar() is True


def test_a_rate_of_nothing_is_refused(operations: Operations) -> None:
    with pytest.raises(WrongSelection, match="rate"):
        retry(operations, new_id(), rate_per_second=0)


class Killed(Exception):
    """Stands for the end of the process."""


def test_a_run_that_was_killed_goes_on_when_it_is_run_again(
    operations: Operations, operator_actions: OperatorActions, audit: Audit, engine: Engine, make: Make
) -> None:
    ids = make(Status.FAILED, 2 * PAGE + 5)
    chosen = Selection(filter=Filter(status="failed"))

    def die(tally: ActionCounts) -> None:
        raise Killed

    with pytest.raises(Killed):
        operations.retry(chosen, operator="ann", progress=die)
    assert count_of(audit, Status.RETRYING) == PAGE
    with transaction(engine) as connection:
        record = operator_actions.record(connection.execute(text("SELECT id FROM operator_records")).scalar_one())
    assert (record.result["changed"], record.finished_at) == (PAGE, None)

    again = operations.retry(chosen, operator="ann")
    assert again.changed == PAGE + 5
    assert count_of(audit, Status.RETRYING) == len(ids)
    assert {len(operator_events(audit, id_)) for id_ in (ids[0], ids[PAGE], ids[-1])} == {1}


def test_two_operators_at_once_retry_each_notification_once(
    operations: Operations, audit: Audit, engine: Engine, make: Make
) -> None:
    ids = make(Status.FAILED, PAGE + 200)
    chosen = Selection(filter=Filter(status="failed"))
    results = in_parallel(
        *(lambda name=name: operations.retry(chosen, operator=name) for name in ("ann", "bob", "eve"))
    )
    assert sum(result.changed for result in results) == len(ids)
    with transaction(engine) as connection:
        query = "SELECT count(*), count(DISTINCT notification_id) FROM events WHERE kind = 'operator'"
        assert tuple(connection.execute(text(query)).one()) == (len(ids), len(ids))


def test_a_page_does_not_follow_another_action_beyond_its_own_rows(
    operator_actions: OperatorActions, engine: Engine, make: Make
) -> None:
    first, second = sorted(make(Status.FAILED, 2))
    begun = operator_actions.begin("ann", "retry", {}, None)
    move = Move(Status.RETRYING, RETRYABLE, limit=1)
    pages: list[Any] = []

    def run() -> None:
        chosen = Selection(filter=Filter(status="failed"))
        pages.append(operator_actions.move_page(begun.id, chosen, move, after=None, tally=ActionCounts()))

    thread = threading.Thread(target=run)
    lock = text("UPDATE states SET status = 'retrying' WHERE id = :id")
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    def is_waiting() -> bool:
        with transaction(engine) as connection:
            return bool(connection.execute(waiting).scalar_one())

    with engine.connect() as faster, engine.connect() as its_next_page:
        faster.execute(lock, {"id": first})
        its_next_page.execute(lock, {"id": second})
        thread.start()
        wait_until(is_waiting)
        faster.commit()
        thread.join(patient(20))
        is_over = not thread.is_alive()
    thread.join()
    assert is_over
    [page] = pages
    assert (page.tally, page.last) == (ActionCounts(), first)


def test_retry_and_cancel_at_once_leave_a_lawful_story(operations: Operations, audit: Audit, make: Make) -> None:
    ids = make(Status.FAILED, 200)
    in_parallel(
        lambda: retry(operations, *ids),
        lambda: operations.cancel(Selection(tuple(ids)), operator="bob"),
        lambda: retry(operations, *ids[::-1]),
    )
    for id_ in ids:
        told = [Status(event.status) for event in audit.story(id_).events if event.status]
        steps = [Status.FAILED, *told[1:]]
        assert all(may_follow(old, new) for old, new in pairwise(steps)), steps
        assert audit.story(id_).notification.status == steps[-1]


def test_what_workers_take_meanwhile_is_not_cancelled(
    operations: Operations, ledger: Ledger, audit: Audit
) -> None:
    ids = accept(ledger, 300)
    claims, result = in_parallel(
        lambda: ("claims", ledger.claim(ids, lease_seconds=60)),
        lambda: ("result", operations.cancel(Selection(tuple(ids)), operator="ann")),
    )
    claimed = dict([claims, result])["claims"]
    cancelled = dict([claims, result])["result"]
    assert len(claimed) + cancelled.changed == 300
    assert count_of(audit, Status.CANCELLED) == cancelled.changed


@pytest.mark.parametrize("status", CANCELLABLE)
def test_cancel_stops_what_is_not_sent(
    operations: Operations, audit: Audit, ledger: Ledger, make: Make, status: Status
) -> None:
    [wanted] = make(status, due_at=datetime.now(UTC) - SOON)
    result = operations.cancel(Selection((wanted,)), operator="ann", reason="wrong text")
    found = audit.story(wanted).notification
    assert (result.changed, found.status, found.reason, found.due_at) == (1, "cancelled", "operator", None)
    assert operator_events(audit, wanted)[0].startswith("cancelled by ann: wrong text (operator record ")
    assert ledger.take_due(limit=10, unknown_after_seconds=30) == []
    assert ledger.claim([wanted], lease_seconds=60) == []


@pytest.mark.parametrize("status", [status for status in Status if status not in CANCELLABLE])
def test_cancel_leaves_everything_else(operations: Operations, audit: Audit, make: Make, status: Status) -> None:
    [other] = make(status)
    result = operations.cancel(Selection((other,)), operator="ann")
    assert (result.changed, audit.story(other).notification.status) == (0, status)
    assert result.skipped[0].why.startswith(f"{status}: ")


def test_a_send_that_has_begun_cannot_be_cancelled_and_is_told(operations: Operations, make: Make) -> None:
    [sending] = make(Status.SENDING)
    [skipped] = operations.cancel(Selection((sending,)), operator="ann").skipped
    assert "cannot be stopped" in skipped.why


def test_cancel_by_filter_counts_first(operations: Operations, audit: Audit, make: Make) -> None:
    make(Status.SCHEDULED, 2)
    make(Status.SENT, 1)
    chosen = Selection(filter=Filter(template="receipt"))
    assert operations.cancel(chosen, operator="ann", dry_run=True).changed == 2
    assert operations.cancel(chosen, operator="ann").changed == 2
    assert operations.cancel(chosen, operator="ann").changed == 0


def reschedule(operations: Operations, *ids: UUID, at: datetime, **options: Any) -> ActionResult:
    return operations.reschedule(Selection(ids), at, operator="ann", **options)


def test_a_task_for_the_old_time_sends_nothing_and_the_new_time_does(
    operations: Operations, audit: Audit, ledger: Ledger, engine: Engine
) -> None:
    file = AttachmentRepository(engine).add(NewAttachment("shop", "a.txt", "text/plain", b"a"))
    [queued], [scheduled] = (
        accept(ledger),
        accept(ledger, send_at=datetime.now(UTC) + SOON, attachments=[file.id]),
    )
    # A worker has read it already, and is about to claim it.
    [read] = ledger.read_queued([queued]).new
    later = datetime.now(UTC) + timedelta(hours=1)
    result = reschedule(operations, queued, scheduled, at=later, reason="too early")
    assert (result.matched, result.changed, result.skipped) == (2, 2, ())
    for id_ in (queued, scheduled):
        found = audit.story(id_).notification
        assert (found.status, found.send_at, found.due_at) == ("scheduled", later, later)
        assert operator_events(audit, id_)[0].startswith("rescheduled to 20")
        told = [event.status for event in audit.story(id_).events if event.status]
        assert told == (["queued", "scheduled"] if id_ == queued else ["scheduled"])
    with transaction(engine) as connection:
        # Its file is kept until then.
        assert connection.execute(text("SELECT needed_until FROM attachments")).scalar_one() == later
    call = NewAttempt(read, "smtp")
    assert ledger.claim_and_start([call], token=new_id(), lease_seconds=60, margin_seconds=1) == {}
    assert ledger.claim([queued, scheduled], lease_seconds=60) == []
    assert ledger.take_due(limit=10, unknown_after_seconds=30) == []
    # A time that has passed means now.
    moved_at = audit.now()
    reschedule(operations, queued, at=datetime.now(UTC) - SOON)
    now = audit.story(queued).notification
    # How late it is counts from then.
    assert now.send_at is not None
    assert now.due_at == now.send_at >= moved_at
    assert [due.id for due in ledger.take_due(limit=10, unknown_after_seconds=30)] == [queued]
    assert [claim.id for claim in ledger.claim([queued], lease_seconds=60)] == [queued]


def test_what_cannot_have_another_time_keeps_its_own_and_says_why(
    operations: Operations, audit: Audit, ledger: Ledger, make: Make
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    [expiring] = accept(ledger, expires_at=later)
    [sending], [retrying] = make(Status.SENDING), make(Status.RETRYING)
    [tried] = make(Status.QUEUED, attempt_count=1)
    wanted = (expiring, sending, retrying, tried)
    seen = reschedule(operations, *wanted, at=later, dry_run=True)
    done = reschedule(operations, *wanted, at=later)
    assert (seen.matched, seen.changed, seen.expired) == (done.matched, done.changed, done.expired) == (4, 0, 1)
    assert seen.skipped == done.skipped
    whys = {UUID(one.id): one.why for one in done.skipped}
    assert whys[expiring] == "queued: its expires_at is not after that time; choose an earlier time"
    assert "cannot be stopped" in whys[sending]
    assert whys[retrying].startswith("retrying: it was tried already")
    assert whys[tried].startswith("queued: it was tried already")
    by_filter = Selection(filter=Filter(template="receipt"))
    assert operations.reschedule(by_filter, later, operator="ann", dry_run=True).changed == 0
    with pytest.raises(InvalidMessage, match="366 days ahead"):
        reschedule(operations, expiring, at=datetime.now(UTC) + timedelta(days=400))


def test_a_claim_and_a_new_time_at_once_are_one_of_the_two(
    operations: Operations, ledger: Ledger, audit: Audit
) -> None:
    ids, later = accept(ledger, 200), datetime.now(UTC) + timedelta(hours=1)
    claims, result = sorted(
        in_parallel(lambda: ledger.claim(ids, lease_seconds=60), lambda: reschedule(operations, *ids, at=later)),
        key=lambda answer: isinstance(answer, ActionResult),
    )
    assert len(claims) + result.changed == 200
    assert count_of(audit, Status.SCHEDULED) == result.changed


def hold(ledger: Ledger, engine: Engine) -> UUID:
    """A notification whose worker died in the call."""
    [notification] = accept(ledger)
    [claimed] = ledger.claim([notification], lease_seconds=60)
    ledger.start_attempts([NewAttempt(claimed, "twilio")], margin_seconds=1)
    ledger.finish([DeliveryResult(claimed.id, claimed.claim, Status.UNKNOWN, Reason.OUTCOME_UNKNOWN, number=1)])
    return notification


def test_an_unknown_outcome_is_resolved_as_sent(
    operations: Operations, ledger: Ledger, audit: Audit, engine: Engine
) -> None:
    held = hold(ledger, engine)
    result = operations.resolve(Selection((held,)), Resolution.SENT, operator="ann")
    found = audit.story(held).notification
    assert (result.changed, found.status, found.due_at) == (1, "sent", None)
    assert found.sent_at is not None


def test_an_unknown_outcome_is_resolved_to_be_sent_again(
    operations: Operations, ledger: Ledger, audit: Audit, engine: Engine
) -> None:
    held = hold(ledger, engine)
    assert operations.resolve(Selection((held,)), Resolution.RESEND, operator="ann").changed == 1
    assert [due.id for due in ledger.take_due(limit=10, unknown_after_seconds=30)] == [held]
    assert len(ledger.claim([held], lease_seconds=60)) == 1


def test_two_operators_who_disagree_are_told_so(operations: Operations, ledger: Ledger, engine: Engine) -> None:
    held = hold(ledger, engine)
    results = in_parallel(
        *(
            lambda choice=choice: operations.resolve(Selection((held,)), choice, operator="ann")
            for choice in Resolution
        )
    )
    assert sorted(result.changed for result in results) == [0, 1]
    [loser] = [result for result in results if not result.changed]
    assert "only an unknown outcome" in loser.skipped[0].why


def test_only_an_unknown_outcome_can_be_resolved(operations: Operations, make: Make) -> None:
    [failed] = make(Status.FAILED)
    assert operations.resolve(Selection((failed,)), Resolution.RESEND, operator="ann").changed == 0


def test_nothing_is_stuck_at_first(operations: Operations, ledger: Ledger) -> None:
    accept(ledger, 3)
    assert operations.stuck() == []


def test_stuck_says_what_is_late_and_why(operations: Operations, make: Make) -> None:
    past, ahead = datetime.now(UTC) - SOON, datetime.now(UTC) + SOON
    expected = {
        Cause.NOT_GIVEN_OUT: make(Status.RETRYING, 2, due_at=past) + make(Status.SCHEDULED, 1, due_at=past),
        Cause.LEASE_OVER: make(Status.SENDING, due_at=past),
        Cause.HELD: make(Status.UNKNOWN),
        Cause.PROVIDER_ACCOUNT: make(Status.RETRYING, due_at=ahead, reason="provider_account"),
        Cause.NOT_CONFIGURED: make(Status.RETRYING, due_at=ahead, reason="not_configured"),
        Cause.TEMPLATE_ERROR: make(Status.RETRYING, due_at=ahead, reason="template_error"),
        Cause.PAUSED: make(Status.RETRYING, due_at=ahead, reason="operator", detail="every provider is paused"),
        Cause.RATE_LIMITED: make(Status.RETRYING, due_at=ahead, reason="rate_limited"),
    }
    make(Status.RETRYING, due_at=ahead, reason="provider_unavailable")
    make(Status.RETRYING, due_at=ahead, reason="operator")
    make(Status.SENDING, due_at=ahead)
    make(Status.UNKNOWN, due_at=ahead)
    found = {one.late.cause: one for one in operations.stuck()}
    assert {cause: sorted(one.late.ids) for cause, one in found.items()} == {
        cause: sorted(ids) for cause, ids in expected.items()
    }
    assert all(one.why and one.fix for one in found.values())
    assert found[Cause.NOT_GIVEN_OUT].late.count == 3


def test_what_no_worker_takes_is_stuck(operations: Operations, ledger: Ledger, engine: Engine) -> None:
    [waiting, fresh] = accept(ledger, 2)
    become(engine, Status.QUEUED, [waiting], due_at=datetime.now(UTC), accepted_at=datetime.now(UTC) - SOON)
    become(engine, Status.QUEUED, [fresh], due_at=datetime.now(UTC) + SOON, accepted_at=datetime.now(UTC) - SOON)
    assert [due.id for due in ledger.take_due(limit=10, unknown_after_seconds=30)] == [waiting]
    [one] = operations.stuck()
    assert (one.late.cause, one.late.ids) == (Cause.NOT_TAKEN, (waiting,))
    assert "--lanes normal" in one.fix


def test_stuck_names_only_as_many_ids_as_were_asked_for(operations: Operations, make: Make) -> None:
    make(Status.UNKNOWN, 5)
    [one] = operations.stuck(ids=2)
    assert (one.late.count, len(one.late.ids)) == (5, 2)


QUEUE = "notify.email.normal"


def reject(ledger: Ledger, *bodies: bytes, code: str = "unknown_template", **fields: Any) -> None:
    fault = Fault("template", code, "is not there", "Make it")
    ledger.accept(
        [], [NewRejection(**{"queue": QUEUE, "body": body, "faults": (fault,), **fields}) for body in bodies]
    )


def test_a_replay_gives_the_same_bytes_to_the_same_queue_once(
    replays: Replays, ledger: Ledger, audit: Audit, operator_actions: OperatorActions
) -> None:
    headers = {"trace": "t1", "content_type": "application/json", "x-death": [{"queue": "q"}]}
    reject(ledger, b'{"a": 1}', headers=headers)
    [kept] = audit.rejected()
    published: list[Raw] = []
    result = replays.replay_rejected(RejectedSelection((kept.id,)), published.append, operator="ann")
    assert (result.changed, len(published)) == (1, 1)
    assert (published[0].queue, published[0].body, published[0].content_type) == (
        QUEUE,
        b'{"a": 1}',
        "application/json",
    )
    again = replays.replay_rejected(RejectedSelection((kept.id,)), published.append, operator="ann")
    assert (again.changed, len(published)) == (0, 1)
    assert "it was replayed at" in again.skipped[0].why
    replays.replay_rejected(RejectedSelection((kept.id,)), published.append, operator="ann", again=True)
    assert len(published) == 2


def test_a_replay_by_code_passes_over_what_was_replayed(replays: Replays, ledger: Ledger) -> None:
    reject(ledger, *(f'{{"n": {n}}}'.encode() for n in range(250)))
    reject(ledger, b"{}", code="not_json")
    published: list[Raw] = []
    chosen = RejectedSelection(code="unknown_template")
    assert replays.replay_rejected(chosen, published.append, operator="ann", dry_run=True).changed == 250
    assert published == []
    assert replays.replay_rejected(chosen, published.append, operator="ann").changed == 250
    assert replays.replay_rejected(chosen, published.append, operator="ann").matched == 0
    assert len({raw.body for raw in published}) == len(published) == 250


def test_a_body_that_was_cut_is_not_replayed(replays: Replays, ledger: Ledger, audit: Audit) -> None:
    reject(ledger, b"x" * 70_000)
    [kept] = audit.rejected()
    result = replays.replay_rejected(RejectedSelection((kept.id,)), pytest.fail, operator="ann")  # type: ignore[arg-type]
    assert "only 65536 of its 70000 bytes" in result.skipped[0].why


def test_an_entry_without_the_fields_of_its_batch_is_not_replayed(
    replays: Replays, ledger: Ledger, audit: Audit
) -> None:
    reject(ledger, b'{"to": "ann@example.com"}', entry=3)
    reject(ledger, b'{"to": "ann@example.com", "producer": "shop", "template": "receipt"}', entry=4)
    published: list[Raw] = []
    chosen = RejectedSelection(tuple(kept.id for kept in audit.rejected()))
    result = replays.replay_rejected(chosen, published.append, operator="ann")
    assert (result.changed, len(published)) == (1, 1)
    assert "publish the batch again" in result.skipped[0].why


def test_a_replay_whose_broker_goes_away_goes_on_later(
    replays: Replays, ledger: Ledger, engine: Engine, operator_actions: OperatorActions
) -> None:
    reject(ledger, *(f'{{"n": {n}}}'.encode() for n in range(10)))
    published: list[bytes] = []

    def publish(raw: Raw) -> None:
        if len(published) == 4:
            raise ServiceUnavailable("the broker is away")
        published.append(raw.body)

    chosen = RejectedSelection(code="unknown_template")
    with pytest.raises(ServiceUnavailable):
        replays.replay_rejected(chosen, publish, operator="ann")
    with transaction(engine) as connection:
        record = operator_actions.record(connection.execute(text("SELECT id FROM operator_records")).scalar_one())
    assert (record.result["changed"], record.finished_at) == (4, None)
    rest: list[Raw] = []
    assert replays.replay_rejected(chosen, rest.append, operator="ann").changed == 6
    assert len({*published, *(raw.body for raw in rest)}) == 10


def test_a_purge_deletes_by_age_and_by_id(replays: Replays, ledger: Ledger, audit: Audit, engine: Engine) -> None:
    reject(ledger, b"1", b"2", b"3")
    newest, *older = audit.rejected()
    with transaction(engine) as connection:
        query = "UPDATE rejected_messages SET received_at = now() - interval '40 days' WHERE id <> :id"
        connection.execute(text(query), {"id": newest.id})
    month = RejectedSelection(until=datetime.now(UTC) - timedelta(days=30))
    assert replays.purge_rejected(month, operator="ann", dry_run=True).changed == 2
    assert replays.purge_rejected(month, operator="ann").changed == 2
    assert [kept.id for kept in audit.rejected()] == [newest.id]
    one = RejectedSelection((newest.id, older[0].id))
    result = replays.purge_rejected(one, operator="ann")
    assert (result.matched, result.changed, audit.rejected()) == (2, 1, [])


def test_rejected_messages_are_never_all_meant_by_accident(replays: Replays) -> None:
    with pytest.raises(WrongSelection):
        replays.purge_rejected(RejectedSelection(), operator="ann")
    with pytest.raises(WrongSelection):
        replays.replay_rejected(RejectedSelection(), pytest.fail, operator="ann")  # type: ignore[arg-type]
