"""The table of Vonage's statuses."""

from __future__ import annotations

import pytest

from notifier.providers.outcomes import (
    ACCOUNT,
    BAD_RECIPIENT,
    DESTINATION_REFUSED,
    NO_SUCH_RECIPIENT,
    NOT_FOR_RECIPIENT,
    REFUSED,
    SENDER_REFUSED,
    SENDER_REFUSED_HERE,
    THROTTLED,
    UNAVAILABLE,
    UNKNOWN,
    Verdict,
)
from notifier.providers.vonage.codes import TABLE, judge, pause_seconds


@pytest.mark.parametrize(
    ("status", "words", "expected"),
    [
        ("1", "Throughput Rate Exceeded", THROTTLED),
        ("2", "Missing from param", SENDER_REFUSED),
        ("2", "Missing text param", REFUSED),
        ("3", "Invalid from param", SENDER_REFUSED),
        ("3", "Invalid to param", BAD_RECIPIENT),
        ("3", "Invalid ttl param", REFUSED),
        ("4", "Bad Credentials", ACCOUNT),
        ("5", "Internal Error", UNKNOWN),
        ("6", "Unroutable message - rejected", DESTINATION_REFUSED),
        ("6", "", BAD_RECIPIENT),
        ("9", "Quota Exceeded - rejected", ACCOUNT),
        ("13", "", UNAVAILABLE),
        ("29", "Non White-listed Destination - rejected", NOT_FOR_RECIPIENT),
        ("15", "Illegal Sender Address - rejected", SENDER_REFUSED_HERE),
        ("33", "", NO_SUCH_RECIPIENT),
        ("99", "", REFUSED),
        ("", "", UNKNOWN),
        ("-1", "", UNKNOWN),
        ("ok", "", UNKNOWN),
    ],
)
def test_a_status_means_what_it_should(status: str, words: str, expected: Verdict) -> None:
    assert judge(status, words) == expected


def test_a_row_that_looks_at_words_stands_before_the_one_that_does_not() -> None:
    seen: set[int] = set()
    for row in TABLE:
        assert row.code not in seen, row
        if not row.words:
            seen.add(row.code)


def test_every_row_points_to_vonages_pages() -> None:
    assert all(row.url.startswith("https://developer.vonage.com/en/api-errors/") for row in TABLE)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Throughput Rate Exceeded - please wait [ 978 ] and retry", 0.978),
        ("please wait [ 999999999 ] and retry", 3600.0),
        ("Throughput Rate Exceeded", None),
        ("please wait [ soon ]", None),
    ],
)
def test_the_words_may_say_how_long_to_wait(words: str, expected: float | None) -> None:
    assert pause_seconds(words) == expected
