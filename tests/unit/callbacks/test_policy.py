"""When an endpoint is called again."""

from __future__ import annotations

import pytest

from notifier.callbacks.http import judge
from notifier.callbacks.policy import PARK_SECONDS, pause_after
from notifier.domain.statuses import CallbackFailure


def test_pauses_double_up_to_an_hour_and_half_of_each_is_by_chance() -> None:
    refused = CallbackFailure.REFUSED
    assert [pause_after(refused, tries, 0, None, 1.0) for tries in (1, 2, 3, 11, 500)] == [5, 10, 20, 3600, 3600]
    assert pause_after(refused, 1, 0, None, 0.0) == 2.5


def test_an_endpoint_may_ask_for_more_time_not_for_less() -> None:
    assert pause_after(CallbackFailure.REFUSED, 1, 0, 120, 1.0) == 120
    assert pause_after(CallbackFailure.REFUSED, 11, 0, 1, 1.0) == 3600


def test_after_a_day_it_is_parked() -> None:
    assert pause_after(CallbackFailure.TIMEOUT, 30, PARK_SECONDS - 3600, None, 1.0) == 3600
    assert pause_after(CallbackFailure.TIMEOUT, 30, PARK_SECONDS - 3599, None, 1.0) is None


@pytest.mark.parametrize("failure", [CallbackFailure.GONE, CallbackFailure.NOT_IN_RECORD])
def test_some_failures_are_for_good(failure: CallbackFailure) -> None:
    assert pause_after(failure, 1, 0, None, 0.5) is None


def test_a_whole_day_has_some_thirty_calls() -> None:
    age, tries = 0.0, 1
    while (pause := pause_after(CallbackFailure.REFUSED, tries, age, None, 0.5)) is not None:
        age, tries = age + pause, tries + 1
    assert 30 <= tries <= 50


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (200, None),
        (204, None),
        (301, CallbackFailure.REDIRECT),
        (400, CallbackFailure.REFUSED),
        (410, CallbackFailure.GONE),
        (503, CallbackFailure.REFUSED),
    ],
)
def test_what_an_answer_means(status: int, failure: CallbackFailure | None) -> None:
    assert judge(status) is failure
