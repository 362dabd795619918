"""Receipts on a real Postgres: early, late, twice, shuffled, at once, and about what is none of theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import permutations

import pytest

from notifier.domain.message import new_id
from notifier.domain.statuses import Outcome, Status
from notifier.operations import Operations, Selection
from notifier.providers.vonage.webhooks import read_receipt
from notifier.store.engine import make_engine
from notifier.store.operator_actions import OperatorActions
from notifier.store.provider_reports import NewReport, RecordedReport
from notifier.store.records import DeliveryResult, NotificationToSend
from notifier.store.stuck import Lateness
from tests.support.counted import counted
from tests.support.receipts import SID, Texts, taken
from tests.waiting import patient

#: The worker's own result, among the reports: it may come before, between or after them.
OWN = ("own", None)
ARRIVED = (("queued", None), ("sending", None), ("sent", None), ("undelivered", "30003"), ("delivered", None))
LOST = ARRIVED[:4]


@pytest.fixture
def texts(database_url: str) -> Iterator[Texts]:
    engine = make_engine(database_url, pool_size=8)
    yield Texts(engine)
    engine.dispose()


@pytest.mark.parametrize(("words", "status"), [(ARRIVED, Status.DELIVERED), (LOST, Status.UNDELIVERED)])
def test_every_order_of_reports_and_of_our_own_result_ends_alike(
    texts: Texts, words: tuple[tuple[str, str | None], ...], status: Status
) -> None:
    orders = list(permutations(words))
    ends = set()
    for number, (claim, order) in enumerate(zip(texts.start(len(orders)), orders, strict=True)):
        place = number % (len(words) + 1)
        # One of them comes again at once, one at the very end.
        with_own = [*order[:place], OWN, *order[place:], order[number % len(order)]]
        for word, code in [with_own[0], *with_own]:
            if word == "own":
                texts.accepted(claim)
            else:
                texts.report(claim.id, word, code)
        story = texts.story(claim.id)
        found, [attempt] = story.notification, story.attempts
        moves = [event.status for event in story.events if event.status]
        assert len(moves) == len(set(moves)), moves
        ends.add(
            (
                found.status,
                found.reason,
                found.detail,
                found.due_at,
                found.provider,
                found.provider_message_id,
                attempt.outcome,
                attempt.provider_message_id,
                tuple(texts.said(claim.id)),
            )
        )
        assert found.sent_at is not None
    [end] = ends
    assert end[0] == status
    assert (end[3], end[4], end[5], end[6], end[7]) == (None, "twilio", SID, Outcome.ACCEPTED, SID)
    assert len(end[8]) == len(words)
    expected: tuple[str | None, str | None] = (None, None)
    if status is Status.UNDELIVERED:
        expected = ("unreachable_recipient", "undelivered: handset cannot be reached now (code 30003)")
    assert end[1:3] == expected


def test_the_same_report_at_once_is_written_once(texts: Texts) -> None:
    claim = texts.send()
    start = threading.Barrier(8)
    answers: list[RecordedReport] = []

    def report() -> None:
        start.wait(timeout=patient(30))
        answers.append(texts.report(claim.id, "delivered"))

    threads = [threading.Thread(target=report) for _ in range(8)]
    with counted("notifier_sent_to_delivered_seconds_count", 1, channel="sms"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [RecordedReport.MOVED, *[RecordedReport.REPEATED] * 7]
    assert texts.said(claim.id) == ["delivered"]


def test_reports_and_results_that_are_written_at_once_do_not_lock_each_other_up(texts: Texts) -> None:
    claims = texts.start(120)
    start = threading.Barrier(5)
    failures: list[BaseException] = []

    def report(order: int) -> None:
        start.wait(timeout=patient(30))
        try:
            for claim in claims[::order]:
                texts.report(claim.id, "sent")
                texts.report(claim.id, "delivered")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=report, args=(order,)) for order in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    start.wait(timeout=patient(30))
    for first in range(0, len(claims), 30):
        texts.ledger.finish([taken(claim) for claim in claims[first : first + 30]])
    for thread in threads:
        thread.join()
    assert not failures
    assert {texts.status(claim.id) for claim in claims} == {Status.DELIVERED}
    assert all(texts.said(claim.id) == ["delivered", "sent"] for claim in claims)


def test_a_report_before_our_commit_is_followed_by_no_second_send_when_the_worker_dies(texts: Texts) -> None:
    [claim] = texts.start()
    assert texts.report(claim.id, "sent") is RecordedReport.MOVED
    texts.pass_time(claim.id)
    assert texts.ledger.take_due(limit=10, unknown_after_seconds=30) == []
    [attempt] = texts.story(claim.id).attempts
    assert (attempt.outcome, attempt.provider_message_id) == (Outcome.ACCEPTED, SID)
    assert texts.status(claim.id) == Status.SENT


def test_a_failure_that_we_believed_in_does_not_outlive_a_report(texts: Texts) -> None:
    [claim] = texts.start()
    texts.report(claim.id, "delivered")
    lost = DeliveryResult(
        claim.id, claim.claim, Status.RETRYING, number=1, outcome=Outcome.UNAVAILABLE, due_in_seconds=1
    )
    texts.ledger.finish([lost])
    story = texts.story(claim.id)
    assert (story.notification.status, story.attempts[0].outcome) == (Status.DELIVERED, Outcome.ACCEPTED)


@pytest.mark.parametrize(("word", "status"), [("sent", "sent"), ("delivered", "delivered")])
def test_a_report_settles_an_unknown_outcome_at_every_point_of_its_way(
    texts: Texts, word: str, status: str
) -> None:
    in_hand, unknown, retrying, queued, claimed = texts.start(5)
    for claim in (unknown, retrying, queued, claimed):
        texts.pass_time(claim.id)
    texts.ledger.take_due(limit=10, unknown_after_seconds=30)
    assert {texts.status(claim.id) for claim in (unknown, retrying, queued, claimed)} == {Status.UNKNOWN}
    again = [(claim.id, claim.claim, True, "sent again") for claim in (retrying, queued, claimed)]
    texts.ledger.settle_unknown(again)
    texts.become(retrying.id, due_at=None)
    texts.ledger.take_due(limit=10, unknown_after_seconds=30)
    [second] = texts.ledger.claim([claimed.id], lease_seconds=60)
    for claim in (in_hand, unknown, retrying, queued, claimed):
        assert texts.report(claim.id, word) is RecordedReport.MOVED
    everything = [claim.id for claim in (in_hand, unknown, retrying, queued, claimed)]
    assert {texts.status(id_) for id_ in everything} == {status}
    # Nobody sends any of them again: not the sweep, not a task, not the worker that has it in hand again.
    assert texts.ledger.take_due(limit=10, unknown_after_seconds=30) == []
    assert texts.ledger.claim(everything, lease_seconds=60) == []
    assert texts.attempt([second]) == 0
    texts.ledger.settle_unknown(again)
    assert {texts.status(id_) for id_ in everything} == {status}
    assert texts.ledger.unknown_attempts(everything) == []


def test_a_second_attempt_that_is_under_way_is_recorded_and_the_first_ones_failure_counts_for_nothing(
    texts: Texts,
) -> None:
    [claim] = texts.start()
    texts.pass_time(claim.id)
    texts.ledger.take_due(limit=10, unknown_after_seconds=30)
    texts.ledger.settle_unknown([(claim.id, claim.claim, True, "sent again")])
    texts.ledger.take_due(limit=10, unknown_after_seconds=30)
    [second] = texts.ledger.claim([claim.id], lease_seconds=60)
    texts.attempt([second])
    assert texts.report(claim.id, "undelivered", "30003") is RecordedReport.NOTED
    texts.accepted(second, 2, sid="SM2")
    assert texts.status(claim.id) == Status.SENT
    assert texts.report(claim.id, "undelivered", "30005", attempt=2, sid="SM2") is RecordedReport.MOVED
    assert texts.report(claim.id, "delivered") is RecordedReport.MOVED
    found = texts.story(claim.id).notification
    assert (found.status, found.reason, found.provider_message_id) == (Status.DELIVERED, None, SID)


def test_a_second_attempt_whose_worker_died_does_not_stay_open_when_the_first_one_arrived(texts: Texts) -> None:
    [claim] = texts.start()
    texts.pass_time(claim.id)
    texts.ledger.take_due(limit=10, unknown_after_seconds=30)
    texts.ledger.settle_unknown([(claim.id, claim.claim, True, "sent again")])
    texts.ledger.take_due(limit=10, unknown_after_seconds=30)
    [second] = texts.ledger.claim([claim.id], lease_seconds=60)
    texts.attempt([second])
    assert texts.report(claim.id, "delivered") is RecordedReport.MOVED
    # Nothing is due any more, so no sweep would close it.
    assert [one.outcome for one in texts.story(claim.id).attempts] == ["accepted", "unknown"]
    # If the worker lives all the same, its answer counts.
    texts.accepted(second, 2, sid="SM2")
    assert [one.outcome for one in texts.story(claim.id).attempts] == ["accepted", "accepted"]
    assert texts.status(claim.id) == Status.DELIVERED


def test_what_an_operator_set_going_again_is_not_stopped_by_old_reports(texts: Texts) -> None:
    claim = texts.send()
    texts.report(claim.id, "undelivered", "30003")
    operations = Operations(OperatorActions(texts.engine), Lateness(texts.engine))
    assert operations.retry(Selection((claim.id,)), operator="ann").changed == 1
    for word, code in (("undelivered", "30003"), ("failed", "30008"), ("sent", None), ("queued", None)):
        assert texts.report(claim.id, word, code) is not RecordedReport.MOVED
        assert texts.status(claim.id) == Status.RETRYING
    # But what did arrive is not sent again.
    assert texts.report(claim.id, "delivered") is RecordedReport.MOVED


def test_nothing_is_stored_about_what_is_not_theirs(texts: Texts) -> None:
    claim = texts.send()
    before = texts.count("events")
    assert texts.report(new_id(), "delivered") is RecordedReport.UNKNOWN
    assert texts.report(claim.id, "delivered", providers=["other"]) is RecordedReport.UNKNOWN
    for attempt in (0, -1, 2, 2**31, 10**30):
        assert texts.report(claim.id, "delivered", attempt=attempt) is RecordedReport.UNKNOWN
    assert (texts.count("events"), texts.status(claim.id)) == (before, Status.SENT)


@pytest.mark.parametrize("status", ["cancelled", "expired", "suppressed", "delivered"])
def test_what_has_ended_otherwise_keeps_its_end_and_gains_a_line(texts: Texts, status: str) -> None:
    claim = texts.send()
    texts.become(claim.id, status=status)
    assert texts.report(claim.id, "undelivered", "30003") is RecordedReport.NOTED
    assert texts.report(claim.id, "sent") is RecordedReport.NOTED
    assert texts.status(claim.id) == status
    assert len(texts.said(claim.id)) == 2


def test_words_that_nobody_knows_are_kept_and_move_nothing(texts: Texts) -> None:
    [claim] = texts.start()
    assert texts.report(claim.id, "tele\0ported +15550100199") is RecordedReport.NOTED
    assert texts.status(claim.id) == Status.SENDING
    assert texts.said(claim.id) == ["reports 'tele ported ***99'"]
    assert texts.story(claim.id).attempts[0].outcome is None


def test_a_text_in_parts_has_arrived_when_every_part_has_in_any_order(texts: Texts) -> None:
    words = [("A1", "delivered"), ("A2", "failed"), ("A2", "delivered"), ("A3", "delivered")]
    for order in permutations(words):
        [claim] = texts.start(provider="vonage")
        arrived = 0
        for id_, word in order:
            said = read_receipt({"messageId": id_, "status": word, "err-code": "0"})
            assert said is not None
            report = NewReport(claim.id, 1, ["vonage"], id_, said.words, said.status, said.reason, parts=3)
            texts.book.record(report)
            arrived += word == "delivered"
            assert (texts.status(claim.id) == Status.DELIVERED) == (arrived == 3), order


def test_a_part_that_is_another_texts_does_not_count_as_arrived(texts: Texts) -> None:
    ours, other = texts.start(2, provider="vonage")

    def deliver(claim: NotificationToSend, message: str) -> None:
        new = NewReport(
            claim.id, 1, ["vonage"], message, "delivered", Status.DELIVERED, parts=2, id_space="vonage"
        )
        texts.book.record(new)

    deliver(other, "B1")
    deliver(ours, "B1")
    deliver(ours, "A1")
    assert texts.status(ours.id) != Status.DELIVERED
    deliver(ours, "A2")
    assert texts.status(ours.id) == Status.DELIVERED
