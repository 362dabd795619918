"""The retry policy as a pure function."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.errors import OutcomeUnknown, Rejected, SendError, Throttled, Unavailable
from notifier.domain.retry_policy import (
    ASLEEP_SECONDS,
    DEFAULT_RETRIES,
    MIN_PAUSE_SECONDS,
    UNKNOWN_AFTER_SECONDS,
    LaneRetry,
    Situation,
    decide,
    pause_seconds,
    wait_for_circuit,
)
from notifier.domain.routing import LAST_CHANCE_SECONDS
from notifier.domain.statuses import Lane, Reason, Status

POLICY = LaneRetry(first_seconds=10, max_seconds=100, deadline_seconds=1000, max_attempts=5)


def situation(
    *,
    attempt: int = 1,
    age: float = 0.0,
    expiry: float | None = None,
    jitter: float = 0.5,
) -> Situation:
    return Situation(attempt, age, expiry, jitter)


def test_a_refusal_is_final_with_its_reason() -> None:
    decision = decide(Rejected("no", reason=Reason.INVALID_RECIPIENT), POLICY, situation())
    assert (decision.status, decision.reason) == (Status.FAILED, Reason.INVALID_RECIPIENT)
    assert decision.due_in_seconds is None


def test_an_unknown_outcome_waits_to_be_looked_up() -> None:
    decision = decide(OutcomeUnknown("lost"), POLICY, situation())
    assert (decision.status, decision.due_in_seconds) == (Status.UNKNOWN, UNKNOWN_AFTER_SECONDS)


def test_a_fault_of_ours_waits_longer_the_longer_it_lasts() -> None:
    ours = Unavailable("ours", reason=Reason.PROVIDER_ACCOUNT)
    pauses = [decide(ours, POLICY, situation(age=age, jitter=0.999)).due_in_seconds for age in (0, 30, 300)]
    assert pauses == sorted(pauses, key=lambda pause: pause or 0)
    assert len(set(pauses)) == 3


def test_a_provider_that_asks_for_patience_gets_it() -> None:
    decision = decide(Throttled("slow", retry_after_seconds=300), POLICY, situation())
    assert (decision.status, decision.due_in_seconds) == (Status.RETRYING, 300)


def test_it_gives_up_after_the_last_attempt() -> None:
    decision = decide(Unavailable("away"), POLICY, situation(attempt=5))
    assert (decision.status, decision.reason) == (Status.FAILED, Reason.PROVIDER_UNAVAILABLE)


def test_it_gives_up_when_the_next_attempt_would_be_past_the_deadline() -> None:
    assert decide(Unavailable("away"), POLICY, situation(age=998)).status is Status.FAILED


@pytest.mark.parametrize("reason", [Reason.PROVIDER_ACCOUNT, Reason.NOT_CONFIGURED, Reason.TEMPLATE_ERROR])
def test_a_fault_of_ours_uses_up_no_attempts(reason: Reason) -> None:
    waits = decide(Unavailable("ours", reason=reason), POLICY, situation(attempt=50))
    assert waits.status is Status.RETRYING


def test_an_expired_code_is_never_tried_again() -> None:
    decision = decide(Unavailable("away"), POLICY, situation(expiry=4.9))
    assert decision.status is Status.EXPIRED


def test_a_bug_in_a_provider_is_a_technical_error() -> None:
    decision = decide(SendError("boom", reason=Reason.TECHNICAL_ERROR), POLICY, situation())
    assert (decision.status, decision.reason) == (Status.FAILED, Reason.TECHNICAL_ERROR)


@given(
    st.sampled_from(list(DEFAULT_RETRIES.values())),
    st.integers(1, 10_000),
    st.floats(0, 1, exclude_max=True),
    st.none() | st.floats(0, 86_400),
)
def test_a_pause_keeps_its_bounds(policy: LaneRetry, attempt: int, jitter: float, asked: float | None) -> None:
    pause = pause_seconds(policy, attempt, jitter, asked)
    assert max(MIN_PAUSE_SECONDS, asked or 0) <= pause <= max(policy.max_seconds, asked or 0)


def test_an_urgent_message_is_given_up_within_minutes() -> None:
    assert DEFAULT_RETRIES[Lane.URGENT].deadline_seconds <= 600


URGENT = DEFAULT_RETRIES[Lane.URGENT]


@given(st.floats(0, 2000), st.floats(0, 900), st.none() | st.floats(0.01, 700), st.floats(0, 1, exclude_max=True))
def test_what_no_provider_was_called_for_waits_no_longer_than_it_may(
    age: float, pause: float, expiry: float | None, jitter: float
) -> None:
    untried = Situation(1, age, expiry, jitter, is_untried=True)
    decision = wait_for_circuit(Reason.PROVIDER_ACCOUNT, pause, URGENT, untried)
    assert decision.status is Status.RETRYING
    assert decision.due_in_seconds is not None
    left = untried.seconds_left(URGENT)
    assert decision.due_in_seconds <= max(MIN_PAUSE_SECONDS, left - LAST_CHANCE_SECONDS)
    held = wait_for_circuit(Reason.SENDER_REFUSED, pause, URGENT, untried)
    assert held.due_in_seconds is not None
    assert held.due_in_seconds <= decision.due_in_seconds
    assert held.due_in_seconds <= URGENT.max_seconds + URGENT.first_seconds


@pytest.mark.parametrize("jitter", [0.0, 0.99])
def test_what_waits_for_a_provider_sleeps_far_beyond_the_pause_of_its_circuit(jitter: float) -> None:
    untried = Situation(1, 10.0, None, jitter, is_untried=True)
    decision = wait_for_circuit(Reason.PROVIDER_UNAVAILABLE, 10.0, DEFAULT_RETRIES[Lane.BULK], untried)
    assert decision.due_in_seconds is not None
    assert ASLEEP_SECONDS / 2 <= decision.due_in_seconds <= ASLEEP_SECONDS


def test_what_had_its_last_chance_waits_for_its_deadline_and_not_in_a_tight_loop() -> None:
    tried = Situation(3, 590.0, None, 0.5)
    assert wait_for_circuit(Reason.PROVIDER_UNAVAILABLE, 300.0, URGENT, tried).due_in_seconds == 10.0


def test_what_was_called_for_is_given_up_at_its_deadline_and_what_expired_at_once() -> None:
    tried = Situation(3, 601.0, None, 0.5)
    assert wait_for_circuit(Reason.PROVIDER_ACCOUNT, 5.0, URGENT, tried).status is Status.FAILED
    expired = Situation(1, 10.0, 0.0, 0.5, is_untried=True)
    assert wait_for_circuit(Reason.PROVIDER_ACCOUNT, 5.0, URGENT, expired).status is Status.EXPIRED
