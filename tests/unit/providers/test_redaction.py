"""No personal data in what we keep of a provider's words."""

from __future__ import annotations

import time

import pytest

from notifier.providers.redaction import MAX_DETAIL, mail_detail, sms_detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<zoe@example.com>: user unknown", "<***@example.com>: user unknown"),
        ("to=zoe.d+x@mail.example.com", "***@mail.example.com"),
        ('"zoe d"@example.com refused', "***@example.com refused"),
        ("zoé@example.com and o'brien@example.com", "***@example.com and ***@example.com"),
        ("see https://support.example.com/answer", "see https://support.example.com/answer"),
        ("two\r\nlines\x00and\ud800more", "two lines and more"),
    ],
)
def test_mail_details_show_domains_but_no_mailboxes(text: str, expected: str) -> None:
    assert mail_detail(text) == expected


def test_a_bare_local_part_of_the_recipient_is_masked() -> None:
    assert (
        mail_detail("No such user Zoe here; zoey is", recipient="zoe@example.com")
        == "No such user *** here; zoey is"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The 'To' number +15550100123 is not valid", "The 'To' number ***23 is not valid"),
        ("555 010-0123", "***23"),
        ("error 21211, status 400", "error 21211, status 400"),
    ],
)
def test_sms_details_show_the_last_two_digits(text: str, expected: str) -> None:
    assert sms_detail(text) == expected


def test_a_detail_is_capped() -> None:
    assert len(mail_detail("word " * 500)) == MAX_DETAIL


def test_a_hostile_answer_is_masked_quickly() -> None:
    started = time.process_time()
    mail_detail("x" * 1_000_000 + "@" * 1000, recipient="x@example.com")
    sms_detail("1 " * 500_000)
    assert time.process_time() - started < 2
