"""The table of transitions keeps its promises."""

from __future__ import annotations

from itertools import permutations

from notifier.domain.statuses import FINAL_STATUSES, TRANSITIONS, MessageProof, Status, may_follow, sources_of


def test_every_status_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Status)


def test_no_status_follows_itself() -> None:
    assert not any(may_follow(status, status) for status in Status)


def test_sources_are_the_table_read_backwards() -> None:
    for new in Status:
        assert all(may_follow(old, new) for old in sources_of(new))
        assert {old for old in Status if new in TRANSITIONS[old]} == set(sources_of(new))


def test_a_final_status_is_left_only_for_better_news_by_an_operator_or_for_a_wrong_attribution() -> None:
    better = {Status.SENT, Status.DELIVERED, Status.RETRYING}
    assert all(TRANSITIONS[final] <= better | {Status.UNKNOWN} for final in FINAL_STATUSES)


def test_only_what_a_provider_took_or_may_have_taken_becomes_unknown() -> None:
    taken = {Status.SENT, Status.DELIVERED, Status.UNDELIVERED}
    # On its way in a backup that was restored.
    may_be_taken = {Status.SCHEDULED, Status.QUEUED, Status.SENDING, Status.RETRYING}
    assert set(sources_of(Status.UNKNOWN)) == taken | may_be_taken


def test_proof_takes_a_message_from_a_guess_and_from_nothing_else() -> None:
    beaten = {(one, other) for one in MessageProof for other in MessageProof if one.beats(other)}
    assert beaten == {(MessageProof.ANSWER, MessageProof.LOOK_UP), (MessageProof.REPORT, MessageProof.LOOK_UP)}


def test_provider_reports_end_the_same_in_every_order() -> None:
    for order in permutations([Status.SENT, Status.UNDELIVERED, Status.DELIVERED]):
        status = Status.SENDING
        for report in order:
            status = report if may_follow(status, report) else status
        assert status is Status.DELIVERED


def test_everything_in_flight_can_still_be_accepted() -> None:
    assert set(sources_of(Status.SENT)) == {
        Status.QUEUED,
        Status.SENDING,
        Status.RETRYING,
        Status.UNKNOWN,
        Status.FAILED,
        Status.EXPIRED,
    }
