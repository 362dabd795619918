"""When the message of an attempt may have been made."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from notifier.providers.base import Sought
from notifier.providers.twilio.lookup import window_of

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def make_sought(started_at: datetime, finished_at: datetime | None) -> Sought:
    return Sought(UUID(int=1), 1, "+15550100123", "+15550100100", "hi", started_at, finished_at)


def test_the_window_goes_from_just_before_the_call_to_a_minute_after_it() -> None:
    window = window_of(make_sought(NOON, NOON + timedelta(seconds=8)), 30)
    assert (window.opens_at, window.closes_at) == (NOON - timedelta(seconds=5), NOON + timedelta(seconds=68))


def test_an_unknown_end_is_the_deadline() -> None:
    assert window_of(make_sought(NOON, None), 30).closes_at == NOON + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("started_at", "days"),
    [
        (NOON, (date(2026, 3, 1),)),
        (datetime(2026, 3, 1, 23, 59, 30, tzinfo=UTC), (date(2026, 3, 1), date(2026, 3, 2))),
        (datetime(2026, 3, 1, 0, 0, 3, tzinfo=UTC), (date(2026, 2, 28), date(2026, 3, 1))),
    ],
)
def test_two_days_are_searched_near_midnight(started_at: datetime, days: tuple[date, ...]) -> None:
    assert window_of(make_sought(started_at, started_at + timedelta(seconds=1)), 30).days == days
