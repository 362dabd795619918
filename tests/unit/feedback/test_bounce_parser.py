from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.feedback import bounce_parser
from notifier.feedback.bounce_parser import addresses_in, read_mail
from notifier.feedback.bounce_report import Action, Bounce, Complaint
from notifier.feedback.mail_parts import MAX_READ
from tests.support import bounce_mails as mails

TO = "bounces+token@example.com"
MESSAGE_ID = "0198c0de-0000-7000-8000-000000000001@example.com"


def bounce(mail: str, **more: str) -> Bounce:
    found = read(mail, **more)
    assert isinstance(found, Bounce)
    return found


def read(mail: str, **more: str) -> Bounce | Complaint | None:
    now = format_datetime(datetime.now(UTC))
    values = {"to": TO, "id": MESSAGE_ID, "date": now, "path": TO, "recipient": "zoe@example.net"} | more
    for name, value in values.items():
        mail = mail.replace(f"{{{name}}}", value)
    found = read_mail(mail.encode())
    # Servers write CRLF.
    assert read_mail(mail.replace("\n", "\r\n").encode()).report == found.report
    return found.report


@pytest.mark.parametrize(
    ("mail", "action", "code", "remote", "words"),
    [
        (mails.POSTFIX, "failed", "550 5.1.1", "mx.example.net", "User unknown"),
        (mails.POSTFIX_DELAYED, "delayed", "450 4.4.1", "mx.example.net", "Connection timed out"),
        (mails.POSTFIX_EXPIRED, "failed", "450 4.4.1", "mx.example.net", "Connection timed out"),
        (mails.POSTFIX_FULL, "failed", "552 5.2.2", "mx.example.net", "Over quota"),
        (mails.EXIM, "failed", "550 5.1.1", "mx.example.net", "User doesn't exist"),
        (mails.EXCHANGE, "failed", "550 5.1.10", "", "RecipientNotFound"),
        (mails.EXCHANGE_WRAPPED, "failed", "550 5.2.1", "", "Mailbox disabled"),
        (mails.GMAIL, "failed", "550 5.1.1", "gmail-smtp-in.l.google.com.", "does not exist"),
        (mails.QMAIL, "failed", "550 5.1.1", "", "no mailbox here"),
        (mails.QMAIL_LOCAL, "failed", "550 5.1.1", "", "no mailbox here by that name"),
    ],
)
def test_reports_of_real_servers_are_read(mail: str, action: str, code: str, remote: str, words: str) -> None:
    found = bounce(mail)
    assert (found.action, found.answer.code, found.remote) == (action, code, remote)
    assert words in found.answer.text


def test_the_server_s_time_is_kept_where_it_is_plausible() -> None:
    moment = datetime.now(UTC).replace(microsecond=0)
    assert bounce(mails.GMAIL, date=format_datetime(moment)).occurred_at == moment
    for wrong in ("Mon, 23 Nov 1926 10:00:02 +0000", "yesterday", "", "Mon, 99 Nov 2026 10:00:02 +9999"):
        assert bounce(mails.GMAIL, date=wrong).occurred_at is None


def test_the_most_serious_of_several_recipients_counts() -> None:
    more = (
        "Final-Recipient: rfc822; ann@example.org\nAction: relayed\nStatus: 2.1.9\n\nFinal-Recipient: rfc822; zoe"
    )
    assert bounce(mails.POSTFIX.replace("Final-Recipient: rfc822; zoe", more)).action is Action.FAILED


def test_a_report_in_base64_or_without_an_action_is_read() -> None:
    silent = mails.POSTFIX.replace("Action: failed\n", "")
    assert bounce(silent).action is Action.FAILED
    unicode = mails.POSTFIX.replace("message/delivery-status", "message/global-delivery-status")
    assert bounce(unicode).answer.code == "550 5.1.1"


@pytest.mark.parametrize(
    "mail",
    [mails.OUT_OF_OFFICE, "", "\n", "Subject: buy\n\nbuy this", mails.COMPLAINT.replace("abuse\n", "not-spam\n")],
)
def test_what_reports_nothing_is_no_report(mail: str) -> None:
    assert read(mail) is None


def test_a_complaint_says_which_mail_it_is_about() -> None:
    expected = Complaint("abuse", ("zoe@example.net",), (TO,), MESSAGE_ID)
    assert read(mails.COMPLAINT) == expected
    headers_only = mails.COMPLAINT.replace("message/rfc822", "text/rfc822-headers")
    assert read(headers_only) == expected
    assert read(mails.COMPLAINT, recipient="redacted", path="") == Complaint("abuse", (), (), MESSAGE_ID)


def test_whom_it_is_to_is_read_from_the_headers() -> None:
    mail = f"Delivered-To: {TO}\nTo: Bounces <bounces@example.com>, other@example.com\n\n"
    assert addresses_in(mail.encode()) == (TO, "bounces@example.com", "other@example.com")


def test_a_mail_nested_a_thousand_times_and_one_without_end_are_no_report() -> None:
    nested = b"Content-Type: message/rfc822\n\n" * 3000
    assert read_mail(nested).report is None
    parts = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (n, n) for n in range(2000))
    assert read_mail(parts).report is None
    assert read_mail(b"To: a@example.com\n\n" + b"<a@" * MAX_READ).report is None


@pytest.mark.parametrize(
    "body",
    [
        b"a@" * 100_000,
        b"user " * 50_000,
        b"<" * 250_000,
        b"-" * 250_000,
        b"\n \t" * 80_000,
        b"550 5.1.1 " * 25_000,
        b"Action: failed\n" * 15_000,
        b"Final-Recipient: rfc822; zoe@example.net\n\n" * 5_000,
        b"--b\nContent-Type: text/plain\n\nmessage " * 6_000,
        b"message mail (x) not delivered " * 1_000_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_no_mail_takes_long_to_read(body: bytes) -> None:
    head = b"From: MAILER-DAEMON@example.net\nSubject: failure notice\n"
    report = b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
    begun = time.process_time()
    for mail in (head + b"\n" + body, head + b"Content-Type: text/html\n\n" + body, head + report + body):
        read_mail(mail)
    assert time.process_time() - begun < 5


_PIECES = st.sampled_from(
    [
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=x\n",
        b"Content-Type: message/delivery-status\n",
        b"Content-Type: message/feedback-report\n",
        b"Content-Type: message/global-delivery-status\n",
        b"Content-Type: text/rfc822-headers; charset=nonsense\n",
        b"Content-Transfer-Encoding: base64\n",
        b"Content-Transfer-Encoding: \xff\n",
        b"--x\n",
        b"--x--\n",
        b"\n",
        b"Action: failed\n",
        b"Action: =?utf-8?q?=ff?=\n",
        b"Final-Recipient: rfc822; zoe@example.net\n",
        b"Status: 5.999.999\n",
        b"Diagnostic-Code: smtp; 550 \xc3\x28\n",
        b"Last-Attempt-Date: \x00\n",
        b"Feedback-Type: abuse\n",
        b"Original-Rcpt-To: <\xff@example.net>\n",
        b"Hi. This is the qmail-send program\n\n<zoe@example.net>:\n",
    ]
)


@given(st.lists(st.one_of(_PIECES, st.binary(max_size=40)), max_size=25))
def test_no_bytes_make_reading_fail(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    read_mail(content)
    # Our own part of it does not live on the net that catches the library's faults.
    mail = bounce_parser._Mail(content)
    for recognise in bounce_parser.RECOGNISERS:
        recognise(mail)
    addresses_in(content)
