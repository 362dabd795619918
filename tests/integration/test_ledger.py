"""The ledger on a real Postgres: accepting once, claiming once, results, and the sweep."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.delivery.sweep import Dispatcher
from notifier.domain.errors import Fault, NotFound, ServiceUnavailable
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane, OnUnknown, Outcome, Reason, Status, may_follow
from notifier.domain.validation import check
from notifier.store.acceptance import KEPT_BODY_BYTES
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.records import (
    Acceptance,
    DeliveryResult,
    NewAttempt,
    NewNotification,
    NewRejection,
    NotificationToSend,
)
from notifier.store.search import Audit, Filter
from tests.support.counted import counted
from tests.support.slow_statements import make_slow
from tests.waiting import patient

MakeNotification = Callable[..., NewNotification]


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


def make_notification(
    key: str | None = "k",
    position: int = 0,
    on_unknown: OnUnknown = OnUnknown.RESEND,
    **fields: Any,
) -> NewNotification:
    given = {"idempotency_key": key, "producer": "shop", "to": "ann@example.com", "template": "receipt", **fields}
    message = check(Message(**{k: v for k, v in given.items() if v is not None}), Channel.EMAIL, Lane.NORMAL)
    return NewNotification(message, Channel.EMAIL, Lane.NORMAL, "v1", on_unknown, position)


def accept(ledger: Ledger, **fields: Any) -> UUID:
    (answer,) = ledger.accept([make_notification(**fields)])
    return answer.id


def claim(ledger: Ledger, *ids: UUID) -> list[NotificationToSend]:
    return ledger.claim(list(ids), lease_seconds=60)


def pass_time(engine: Engine, notification_id: UUID) -> None:
    """As if `due_at` had come: the database's clock is the only one that counts, so the test moves the row."""
    with transaction(engine) as connection:
        connection.execute(
            text("UPDATE states SET due_at = now() - interval '1 second' WHERE id = :id"),
            {"id": notification_id},
        )


def sweep(ledger: Ledger) -> list[UUID]:
    return [due.id for due in ledger.take_due(limit=100, unknown_after_seconds=30)]


def look_up(ledger: Ledger) -> list[UUID]:
    due = ledger.take_unanswered(limit=100, unknown_again_after_seconds=60, receipt_again_after_seconds=60)
    return [one.id for one in due]


def statuses(audit: Audit, notification_id: UUID) -> list[str]:
    return [event.status for event in audit.story(notification_id).events if event.status]


def sent(claimed: NotificationToSend, number: int = 1) -> DeliveryResult:
    return DeliveryResult(
        claimed.id,
        claimed.claim,
        Status.SENT,
        number=number,
        outcome=Outcome.ACCEPTED,
        provider="smtp",
        provider_message_id="q1",
    )


def test_a_message_is_accepted_once_and_its_repetition_is_recorded(ledger: Ledger, audit: Audit) -> None:
    (first,) = ledger.accept([make_notification()])
    (again,) = ledger.accept([make_notification()])
    assert (first.status, again.status, again.fault) == (Status.QUEUED, None, None)
    assert again.id == first.id
    assert audit.story(first.id).duplicates == 1


def test_repetitions_without_end_make_no_story_without_end(ledger: Ledger, audit: Audit, engine: Engine) -> None:
    (first,) = ledger.accept([make_notification()])
    for _ in range(3):
        answers = ledger.accept([make_notification("k", n) for n in range(60)])
        assert {(answer.id, answer.fault) for answer in answers} == {(first.id, None)}
    story = audit.story(first.id)
    assert (story.duplicates, story.duplicates_in_words) == (100, "at least 100")
    assert "not listed" in (story.events[-1].detail or "")
    assert not any("not listed" in (event.detail or "") for event in story.events[:-1])
    # From before they were bounded: the rest of the story is still read.
    with transaction(engine) as connection:
        written = (
            "INSERT INTO events (notification_id, kind) SELECT :id, k FROM unnest(CAST(:kinds AS text[])) AS k"
        )
        connection.execute(text(written), {"id": first.id, "kinds": ["duplicate"] * 500 + ["held"]})
    story = audit.story(first.id)
    assert (story.duplicates, story.events[0].kind, story.events[-1].kind) == (100, "accepted", "held")
    assert len(story.events) == 102


def test_the_same_key_with_another_content_is_refused(ledger: Ledger) -> None:
    ledger.accept([make_notification()])
    (other,) = ledger.accept([make_notification(to="bob@example.com")])
    assert other.fault is not None
    assert (other.fault.field, other.fault.code) == ("idempotency_key", "idempotency_conflict")


def test_keys_of_different_producers_do_not_meet(ledger: Ledger) -> None:
    assert accept(ledger, producer="shop") != accept(ledger, producer="forum")


def test_repetitions_inside_one_batch_are_told_apart(ledger: Ledger) -> None:
    batch = [
        make_notification("a", 0),
        make_notification("b", 1),
        make_notification("a", 2),
        make_notification("a", 3, to="bob@example.com"),
    ]
    answers = ledger.accept(batch)
    assert [answer.status for answer in answers] == [Status.QUEUED, Status.QUEUED, None, None]
    assert answers[2].id == answers[0].id
    assert answers[3].fault is not None


def test_an_id_that_another_notification_has_is_refused_and_leaves_no_key(ledger: Ledger) -> None:
    taken = new_id()
    ledger.accept([make_notification(None, id=taken)])
    for _ in range(2):
        (answer,) = ledger.accept([make_notification("fresh", id=taken)])
        assert answer.fault is not None
        assert answer.fault.code == "id_in_use"
    (answer,) = ledger.accept([make_notification("fresh")])
    assert answer.status is Status.QUEUED


def test_the_same_id_twice_in_a_batch_is_one_notification(ledger: Ledger) -> None:
    same = new_id()
    answers = ledger.accept([make_notification(None, 0, id=same), make_notification(None, 1, id=same)])
    assert [answer.status for answer in answers] == [Status.QUEUED, None]


def test_fifty_publishers_of_one_key_make_one_notification(ledger: Ledger, audit: Audit) -> None:
    start = threading.Barrier(50)
    answers: list[Acceptance] = []

    def publish(number: int) -> None:
        start.wait(timeout=patient(30))
        batch = [make_notification(f"key-{n}", n) for n in range(3)]
        answers.extend(ledger.accept(batch if number % 2 else batch[::-1]))

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 150
    assert sum(answer.status is Status.QUEUED for answer in answers) == 3
    assert len({answer.id for answer in answers}) == 3
    assert sum(audit.story(id_).duplicates for id_ in {answer.id for answer in answers}) == 147


def test_what_cannot_be_stored_is_refused_alone(ledger: Ledger) -> None:
    good = make_notification("good", 0)
    # Past the checks of the contract, as a future bug might let it.
    bad_message = make_notification("bad").message.model_copy(update={"reference": "nul \0"})
    bad = NewNotification(bad_message, Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.RESEND, 1)
    answers = ledger.accept([good, bad])
    assert answers[0].status is Status.QUEUED
    assert answers[1].fault is not None
    assert answers[1].fault.code == "not_storable"


def test_a_rejection_keeps_64_kib_and_any_headers(ledger: Ledger, audit: Audit) -> None:
    headers = {"a\0": float("nan"), "b": b"\xff", "c": {"d": [1, None, "\ud800"]}}
    fault = Fault("to", "bad", "wrong", "mend it")
    ledger.accept([], [NewRejection("notify.sms.bulk", b"\0\xff" * 100_000, (fault,), headers)])
    (kept,) = audit.rejected()
    assert (len(kept.body), kept.body_size) == (KEPT_BODY_BYTES, 200_000)
    assert kept.faults == [fault.as_dict()]
    assert kept.headers["c"] == {"d": [1, None, "?"]}
    assert audit.rejected_message(kept.id) == kept


def test_an_expired_message_is_recorded_and_never_queued(ledger: Ledger, audit: Audit) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    notification_id = accept(ledger, expires_at=past)
    assert audit.story(notification_id).notification.status == "expired"
    assert claim(ledger, notification_id) == []


def test_one_claim_wins(ledger: Ledger) -> None:
    ids = [accept(ledger, key=f"k{n}") for n in range(20)]
    won: list[NotificationToSend] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait(timeout=patient(30))
        won.extend(ledger.claim(ids, lease_seconds=60))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed.id for claimed in won) == sorted(ids)


def test_a_sent_notification_has_its_receipt_and_its_story(ledger: Ledger, audit: Audit) -> None:
    notification_id = accept(ledger)
    (claimed,) = claim(ledger, notification_id)
    started = ledger.start_attempts([NewAttempt(claimed, "smtp")], margin_seconds=5)
    assert started[notification_id].number == 1
    ledger.finish([sent(claimed)])
    story = audit.story(notification_id)
    assert statuses(audit, notification_id) == ["queued", "sending", "sent"]
    assert (story.notification.provider, story.notification.provider_message_id) == ("smtp", "q1")
    assert [attempt.outcome for attempt in story.attempts] == ["accepted"]
    assert story.notification.due_at is None


def test_writing_a_result_twice_changes_nothing(ledger: Ledger, audit: Audit) -> None:
    notification_id = accept(ledger)
    (claimed,) = claim(ledger, notification_id)
    ledger.start_attempts([NewAttempt(claimed, "smtp")], margin_seconds=5)
    ledger.finish([sent(claimed)])
    once = audit.story(notification_id)
    ledger.finish([sent(claimed)])
    assert audit.story(notification_id) == once


def test_what_expires_between_two_calls_gets_no_second_one(ledger: Ledger, audit: Audit) -> None:
    id_ = accept(ledger)
    [claimed] = claim(ledger, id_)
    assert ledger.start_attempts([NewAttempt(claimed, "first")], margin_seconds=1)
    failed = replace(sent(claimed), status=Status.SENDING, outcome=Outcome.THROTTLED)
    ledger.note_failed_attempts([failed])
    expired = replace(claimed, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert ledger.start_attempts([NewAttempt(expired, "second", earlier=1)], margin_seconds=1) == {}
    story = audit.story(id_)
    assert (story.notification.status, story.notification.reason) == ("expired", "expired")
    assert [one.provider for one in story.attempts] == ["first"]
    assert statuses(audit, id_)[-2:] == ["sending", "expired"]


def test_no_attempt_starts_under_a_lease_that_is_nearly_over(ledger: Ledger) -> None:
    notification_id = accept(ledger)
    (claimed,) = claim(ledger, notification_id)
    assert ledger.start_attempts([NewAttempt(claimed, "smtp")], margin_seconds=61) == {}


def test_a_worker_that_died_before_the_call_costs_nothing(ledger: Ledger, audit: Audit, engine: Engine) -> None:
    notification_id = accept(ledger)
    claim(ledger, notification_id)
    pass_time(engine, notification_id)
    assert sweep(ledger) == [notification_id]
    assert statuses(audit, notification_id) == ["queued", "sending", "retrying", "queued"]
    assert audit.story(notification_id).notification.reason == "lease_expired"
    assert len(claim(ledger, notification_id)) == 1


def test_a_worker_that_died_in_the_call_leaves_an_unknown_outcome(
    ledger: Ledger, audit: Audit, engine: Engine
) -> None:
    notification_id = accept(ledger)
    (claimed,) = claim(ledger, notification_id)
    ledger.start_attempts([NewAttempt(claimed, "smtp")], margin_seconds=5)
    pass_time(engine, notification_id)
    assert sweep(ledger) == []
    assert audit.story(notification_id).attempts[0].outcome == "unknown"
    pass_time(engine, notification_id)
    assert sweep(ledger) == []
    assert look_up(ledger) == [notification_id]
    assert look_up(ledger) == []
    ledger.settle_unknown([(notification_id, claimed.claim, True, "sent again")])
    assert sweep(ledger) == [notification_id]
    assert statuses(audit, notification_id) == ["queued", "sending", "unknown", "retrying", "queued"]


def test_what_kills_its_worker_three_times_is_given_up(ledger: Ledger, audit: Audit, engine: Engine) -> None:
    notification_id = accept(ledger)
    for _ in range(2):
        claim(ledger, notification_id)
        pass_time(engine, notification_id)
        (due,) = ledger.take_due(limit=100, unknown_after_seconds=30)
        assert due.alone
    claim(ledger, notification_id)
    pass_time(engine, notification_id)
    with counted("notifier_leases_expired_total", 1):
        assert sweep(ledger) == []
    poison = audit.story(notification_id).notification
    assert (poison.status, poison.reason) == ("failed", "technical_error")


def test_hold_keeps_an_unknown_outcome_for_an_operator(ledger: Ledger, audit: Audit, engine: Engine) -> None:
    notification_id = accept(ledger, on_unknown=OnUnknown.HOLD)
    (claimed,) = claim(ledger, notification_id)
    ledger.start_attempts([NewAttempt(claimed, "twilio")], margin_seconds=5)
    pass_time(engine, notification_id)
    sweep(ledger)
    ledger.settle_unknown([(notification_id, claimed.claim, False, "held")])
    held = audit.story(notification_id)
    assert (held.notification.status, held.notification.due_at) == ("unknown", None)
    assert held.events[-1].kind == "held"


def test_a_late_acceptance_corrects_an_unknown_outcome(ledger: Ledger, audit: Audit, engine: Engine) -> None:
    notification_id = accept(ledger)
    (claimed,) = claim(ledger, notification_id)
    ledger.start_attempts([NewAttempt(claimed, "smtp")], margin_seconds=5)
    pass_time(engine, notification_id)
    sweep(ledger)
    ledger.finish([sent(claimed)])
    story = audit.story(notification_id)
    assert (story.notification.status, story.attempts[0].outcome) == ("sent", "accepted")


def test_a_late_acceptance_corrects_what_expired_meanwhile(ledger: Ledger, audit: Audit, engine: Engine) -> None:
    notification_id = accept(ledger, expires_at=datetime.now(UTC) + timedelta(hours=1))
    (claimed,) = claim(ledger, notification_id)
    ledger.start_attempts([NewAttempt(claimed, "smtp")], margin_seconds=5)
    pass_time(engine, notification_id)
    sweep(ledger)
    ledger.settle_unknown([(notification_id, claimed.claim, True, "sent again")])
    with engine.begin() as connection:
        connection.execute(text("UPDATE messages SET expires_at = now()"))
    assert sweep(ledger) == []
    assert audit.story(notification_id).notification.status == "expired"
    ledger.finish([sent(claimed)])
    story = audit.story(notification_id)
    assert (story.notification.status, story.attempts[0].outcome) == ("sent", "accepted")


def test_a_late_failure_of_an_old_claim_does_not_touch_the_new_one(
    ledger: Ledger, audit: Audit, engine: Engine
) -> None:
    notification_id = accept(ledger)
    (old,) = claim(ledger, notification_id)
    pass_time(engine, notification_id)
    sweep(ledger)
    (new,) = claim(ledger, notification_id)
    ledger.finish([DeliveryResult(old.id, old.claim, Status.FAILED, reason=Reason.TECHNICAL_ERROR)])
    assert audit.story(notification_id).notification.status == "sending"
    assert new.claim == old.claim + 1


def test_a_scheduled_message_waits_for_its_time(ledger: Ledger, audit: Audit, engine: Engine) -> None:
    notification_id = accept(ledger, send_at=datetime.now(UTC) + timedelta(hours=1))
    assert sweep(ledger) == []
    assert claim(ledger, notification_id) == []
    pass_time(engine, notification_id)
    assert sweep(ledger) == [notification_id]
    assert statuses(audit, notification_id) == ["scheduled", "queued"]


def test_a_retry_is_queued_when_it_is_due(ledger: Ledger, audit: Audit, engine: Engine) -> None:
    notification_id = accept(ledger)
    (claimed,) = claim(ledger, notification_id)
    ledger.start_attempts([NewAttempt(claimed, "smtp")], margin_seconds=5)
    waits = DeliveryResult(
        claimed.id,
        claimed.claim,
        Status.RETRYING,
        Reason.PROVIDER_UNAVAILABLE,
        "451 later",
        due_in_seconds=300,
        number=1,
        outcome=Outcome.UNAVAILABLE,
        code="451",
    )
    ledger.finish([waits])
    assert sweep(ledger) == []
    assert claim(ledger, notification_id) == []
    pass_time(engine, notification_id)
    assert sweep(ledger) == [notification_id]


def test_a_lost_task_is_issued_again(ledger: Ledger, audit: Audit, engine: Engine) -> None:
    notification_id = accept(ledger)
    pass_time(engine, notification_id)
    assert sweep(ledger) == [notification_id]
    assert sweep(ledger) == []
    kinds = [event.kind for event in audit.story(notification_id).events]
    assert kinds == ["accepted", "redispatched"]


def test_two_sweeps_at_once_share_the_work(ledger: Ledger, engine: Engine) -> None:
    ids = [accept(ledger, key=f"k{n}") for n in range(60)]
    for notification_id in ids:
        pass_time(engine, notification_id)
    found: list[UUID] = []
    start = threading.Barrier(4)

    def run() -> None:
        start.wait(timeout=patient(30))
        found.extend(sweep(ledger))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(ids)


def test_every_move_in_the_record_is_in_the_table(ledger: Ledger, audit: Audit, engine: Engine) -> None:
    for ending in (Status.SENT, Status.FAILED, Status.RETRYING, Status.UNKNOWN, None):
        notification_id = accept(ledger, key=f"to-{ending}")
        (claimed,) = claim(ledger, notification_id)
        ledger.start_attempts([NewAttempt(claimed, "smtp")], margin_seconds=5)
        if ending is not None:
            ledger.finish([DeliveryResult(claimed.id, claimed.claim, ending, due_in_seconds=1, number=1)])
        for _ in range(3):
            with transaction(engine) as connection:
                connection.execute(
                    text("UPDATE states SET due_at = now() - interval '1 s' WHERE due_at IS NOT NULL")
                )
            sweep(ledger)
        steps = [Status(status) for status in statuses(audit, notification_id)]
        assert all(may_follow(old, new) for old, new in pairwise(steps)), steps


def test_a_search_finds_by_every_field_and_pages_by_id(ledger: Ledger, audit: Audit) -> None:
    ids = [accept(ledger, key=f"k{n}", reference="order-7") for n in range(5)]
    accept(ledger, key="other", to="bob@example.com")
    wanted = Filter(recipient="ann@example.com", reference="order-7", status="queued", producer="shop")
    first = audit.search(wanted, limit=3)
    rest = audit.search(wanted, limit=3, before=first[-1].id)
    assert [row.id for row in first + rest] == sorted(ids, reverse=True)
    now = datetime.now(UTC)
    assert len(audit.search(Filter(since=now - timedelta(minutes=1), until=now + timedelta(minutes=1)))) == 6
    assert audit.search(Filter(until=now - timedelta(minutes=1))) == []
    assert [(row.channel, row.status, row.count) for row in audit.count()] == [("email", "queued", 6)]


def test_an_unknown_id_is_not_found(audit: Audit) -> None:
    with pytest.raises(NotFound, match="no notification has the id"):
        audit.story(new_id())


def test_a_database_that_is_away_is_told_apart_from_a_bug() -> None:
    engine = make_engine("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(ServiceUnavailable, match="database cannot be used now"):
        Ledger(engine).claim([new_id()], lease_seconds=60)
    engine.dispose()


def test_a_sweep_that_takes_the_database_too_long_takes_less(engine: Engine, ledger: Ledger) -> None:
    ledger.accept([make_notification(key=f"k{number}", position=number) for number in range(12)])
    with transaction(engine) as connection:
        connection.execute(text("UPDATE states SET due_at = now()"))
    make_slow(engine, "UPDATE", above=10)
    given: list[UUID] = []
    dispatcher = Dispatcher(ledger, lambda _channel, _lane, ids: given.extend(ids), lambda *_: None)
    assert dispatcher.dispatch_due() == 10
    assert len(given) == 10
