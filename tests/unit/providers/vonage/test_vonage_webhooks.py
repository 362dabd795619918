"""What Vonage says by itself."""

from __future__ import annotations

import pytest

from notifier.domain.statuses import Reason, Status
from notifier.providers.vonage.codes import RECEIPTS
from notifier.providers.vonage.webhooks import read_fields, read_receipt

JSON, FORM = "application/json", "application/x-www-form-urlencoded"


def receipt(status: str, code: str = "0") -> dict[str, str]:
    return {"messageId": "0A0000001234567B", "status": status, "err-code": code}


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("accepted", Status.SENT),
        ("buffered", Status.SENT),
        ("delivered", Status.DELIVERED),
        ("expired", Status.UNDELIVERED),
        ("failed", Status.UNDELIVERED),
        ("rejected", Status.UNDELIVERED),
        ("unknown", None),
    ],
)
def test_a_word_means_a_status_or_nothing(word: str, status: Status | None) -> None:
    report = read_receipt(receipt(word))
    assert report is not None
    assert report.status is status


@pytest.mark.parametrize(
    ("code", "reason", "suppress"),
    [
        ("0", Reason.PROVIDER_REJECTED, False),
        ("3", Reason.INVALID_RECIPIENT, True),
        ("6", Reason.CONTENT_REFUSED, False),
        ("9", Reason.OPTED_OUT, True),
        ("99", Reason.PROVIDER_REJECTED, False),
        ("x", Reason.PROVIDER_REJECTED, False),
    ],
)
def test_a_code_says_why_it_did_not_arrive(code: str, reason: Reason, suppress: bool) -> None:
    report = read_receipt(receipt("failed", code))
    assert report is not None
    assert (report.reason, report.suppress) == (reason, suppress)


def test_no_code_is_there_twice() -> None:
    assert len({row.code for row in RECEIPTS}) == len(RECEIPTS)
    assert next(row for row in RECEIPTS if row.code == 11).meaning == "Vonage has no route"


@pytest.mark.parametrize("fields", [{}, {"status": "delivered"}, {"messageId": "x/y", "status": "delivered"}])
def test_what_has_no_message_or_status_is_no_receipt(fields: dict[str, str]) -> None:
    assert read_receipt(fields) is None


@pytest.mark.parametrize(
    ("body", "kind", "fields"),
    [
        (b"a=1&b=", FORM, {"a": "1", "b": ""}),
        (b'{"a": "1", "b": null, "c": 2}', JSON, {"a": "1", "b": "", "c": "2"}),
        (b"[]", JSON, None),
        (b'{"a": {}}', JSON, None),
        (b'{"a": true}', JSON, None),
        (b"{", JSON, None),
        (b"[" * 100_000, JSON, None),
        (b"\xff", FORM, None),
        (b"\xff", JSON, None),
    ],
)
def test_fields_are_read_or_refused(body: bytes, kind: str, fields: dict[str, str] | None) -> None:
    assert read_fields(body, kind) == fields
