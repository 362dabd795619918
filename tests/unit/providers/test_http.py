"""What HTTP itself says about an answer."""

from __future__ import annotations

import pytest

from notifier.providers.http import judge_status, retry_after
from notifier.providers.outcomes import ACCOUNT, REFUSED, THROTTLED, UNAVAILABLE, UNKNOWN, Verdict


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (302, ACCOUNT),
        (400, REFUSED),
        (401, ACCOUNT),
        (404, ACCOUNT),
        (408, UNAVAILABLE),
        (429, THROTTLED),
        (500, UNKNOWN),
        (503, UNKNOWN),
    ],
)
def test_a_status_alone_means_what_it_should(status: int, expected: Verdict) -> None:
    assert judge_status(status) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "999999"}, 3600.0),
        ({"Retry-After": "Sun, 01 Mar 2020 12:00:00 GMT"}, 0.0),
        ({"Retry-After": "Sun, 01 Mar 2020 12:00:00 GMT", "Date": "Sun, 01 Mar 2020 11:59:30 GMT"}, 30.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: dict[str, str], expected: float | None) -> None:
    assert retry_after(value) == expected
