"""The table of Twilio's codes."""

from __future__ import annotations

import pytest

from notifier.domain.statuses import Outcome, Reason
from notifier.providers.outcomes import (
    ACCOUNT,
    CONTENT,
    DESTINATION_REFUSED,
    NO_SUCH_RECIPIENT,
    OPTED_OUT,
    REFUSED,
    THROTTLED,
    UNKNOWN,
    Verdict,
)
from notifier.providers.twilio.codes import TABLE, judge
from notifier.providers.twilio.webhooks import report_of


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, 21211, NO_SUCH_RECIPIENT),
        (400, 21610, OPTED_OUT),
        (403, 63014, OPTED_OUT),
        (400, 30007, CONTENT),
        (401, 20003, ACCOUNT),
        (404, 20404, ACCOUNT),
        (403, 21408, DESTINATION_REFUSED),
        (429, 20429, THROTTLED),
        (429, 99999, THROTTLED),
        (429, None, THROTTLED),
        (401, None, ACCOUNT),
        (404, None, ACCOUNT),
        (302, None, ACCOUNT),
        (400, 99999, REFUSED),
        (404, 99999, REFUSED),
        (400, None, REFUSED),
        (500, 20500, UNKNOWN),
        (503, None, UNKNOWN),
        (500, 21211, UNKNOWN),
    ],
)
def test_an_answer_means_what_it_should(status: int, code: int | None, expected: Verdict) -> None:
    assert judge(status, code) == expected


@pytest.mark.parametrize("code", [20003, 20404, 30002, 30034, 63038])
def test_faults_of_our_account_make_messages_wait(code: int) -> None:
    verdict = judge(400, code)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, Reason.PROVIDER_ACCOUNT)


@pytest.mark.parametrize("code", [21212, 21606, 21659, 21660, 21703, 30032, 30033, 30035])
def test_faults_of_our_sender_make_its_messages_wait(code: int) -> None:
    verdict = judge(400, code)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, Reason.SENDER_REFUSED)


def test_a_code_of_a_status_callback_is_read_by_the_same_table() -> None:
    unknown = report_of("SM1", "undelivered", "30005")
    assert unknown.words == "undelivered: unknown destination handset (code 30005)"
    assert (unknown.reason, unknown.suppress) == (Reason.INVALID_RECIPIENT, True)
    assert report_of("SM1", "undelivered", "30003").reason is Reason.UNREACHABLE_RECIPIENT
    other = report_of("SM1", "undelivered", "12345")
    assert (other.words, other.reason) == ("undelivered (code 12345)", Reason.PROVIDER_REJECTED)


def test_no_code_is_listed_twice() -> None:
    codes = [row.code for row in TABLE]
    assert len(codes) == len(set(codes))


def test_every_row_points_to_twilios_page() -> None:
    assert all(row.url.endswith(f"/docs/api/errors/{row.code}") for row in TABLE)
