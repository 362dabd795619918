"""From a verdict to the exception."""

from __future__ import annotations

import pytest

from notifier.domain.errors import OutcomeUnknown, Rejected, SendError, Throttled, Unavailable
from notifier.domain.statuses import Outcome, Reason
from notifier.providers.outcomes import ACCOUNT, NO_SUCH_RECIPIENT, THROTTLED, UNKNOWN, Verdict


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [(NO_SUCH_RECIPIENT, Rejected), (THROTTLED, Throttled), (ACCOUNT, Unavailable), (UNKNOWN, OutcomeUnknown)],
)
def test_a_verdict_becomes_the_error_of_its_outcome(verdict: Verdict, kind: type[SendError]) -> None:
    error = verdict.error("words", code="550")
    assert type(error) is kind
    assert (error.outcome, error.reason, error.code, error.detail) == (
        verdict.outcome,
        verdict.reason,
        "550",
        "words",
    )


def test_a_pause_that_came_with_the_answer_beats_the_tables() -> None:
    verdict = Verdict(Outcome.THROTTLED, Reason.PROVIDER_THROTTLED, retry_after_seconds=300)
    error = verdict.error("", retry_after_seconds=0.0)
    assert isinstance(error, Throttled)
    assert error.retry_after_seconds == 0.0


def test_acceptance_is_no_error() -> None:
    with pytest.raises(ValueError, match="receipt"):
        Verdict(Outcome.ACCEPTED, Reason.EXPIRED).error("")
