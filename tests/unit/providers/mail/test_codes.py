"""The table of SMTP codes."""

from __future__ import annotations

import pytest

from notifier.domain.errors import Throttled, Unavailable
from notifier.domain.statuses import Outcome, Reason, Subject
from notifier.providers.mail.code_table import TABLE, Stage
from notifier.providers.mail.codes import judge, queue_id, read_answer
from notifier.providers.outcomes import (
    BAD_RECIPIENT,
    DESTINATION_REFUSED,
    NO_SUCH_RECIPIENT,
    NOT_FOR_RECIPIENT,
    REFUSED_HERE,
    SENDER_REFUSED,
    SENDER_REFUSED_HERE,
    Verdict,
)

INVALID = (Outcome.REJECTED, Reason.INVALID_RECIPIENT)
UNREACHABLE = (Outcome.REJECTED, Reason.UNREACHABLE_RECIPIENT)
CONTENT = (Outcome.REJECTED, Reason.CONTENT_REFUSED)
REFUSED = (Outcome.REJECTED, Reason.PROVIDER_REJECTED)
ACCOUNT = (Outcome.UNAVAILABLE, Reason.PROVIDER_ACCOUNT)
LATER = (Outcome.UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE)
FULL = (Outcome.UNAVAILABLE, Reason.UNREACHABLE_RECIPIENT)
TOO_FAST = (Outcome.THROTTLED, Reason.PROVIDER_THROTTLED)
SENDER = (Outcome.UNAVAILABLE, Reason.SENDER_REFUSED)
ELSEWHERE = (Outcome.REJECTED, Reason.DESTINATION_REFUSED)

#: Answers as real servers give them.
ANSWERS = [
    (Stage.CONNECT, 421, "4.7.0 mx.example.com too many connections from your IP", TOO_FAST),
    (Stage.CONNECT, 421, "4.7.0 Too many concurrent SMTP connections; please try again later.", TOO_FAST),
    (Stage.CONNECT, 554, "mx.example.com no SMTP service here", LATER),
    (Stage.CONNECT, 454, "4.7.0 TLS not available", (Outcome.THROTTLED, Reason.PROVIDER_THROTTLED)),
    (Stage.AUTH, 535, "5.7.8 Error: authentication failed", ACCOUNT),
    (Stage.AUTH, 454, "temporary authentication failure", LATER),
    (Stage.AUTH, 500, "what?", ACCOUNT),
    (Stage.MAIL, 530, "5.7.0 Must issue a STARTTLS command first", ACCOUNT),
    (Stage.MAIL, 553, "5.7.1 <***>: Sender address rejected: not owned by user", SENDER),
    (Stage.MAIL, 550, "5.1.8 Sender domain not found", SENDER),
    (Stage.MAIL, 552, "5.3.4 Message size exceeds fixed limit", CONTENT),
    (Stage.MAIL, 421, "4.4.2 timeout", LATER),
    (Stage.MAIL, 454, "Throttling failure: Maximum sending rate exceeded.", TOO_FAST),
    (Stage.MAIL, 454, "Throttling failure: Daily message quota exceeded.", TOO_FAST),
    (Stage.RCPT, 550, "5.1.1 <x@example.com>: Recipient address rejected: User unknown", INVALID),
    (Stage.RCPT, 550, "5.1.1 The email account that you tried to reach\n5.1.1 does not exist", INVALID),
    (Stage.RCPT, 550, "5.1.10 RESOLVER.ADR.RecipientNotFound", INVALID),
    (Stage.RCPT, 550, "No such user here", INVALID),
    (Stage.RCPT, 550, "Requested action not taken: mailbox unavailable", INVALID),
    (Stage.RCPT, 550, "Sender address does not exist", SENDER),
    (Stage.RCPT, 556, "5.1.10 null MX", INVALID),
    (Stage.RCPT, 550, "5.2.1 The email account that you tried to reach is disabled", INVALID),
    (Stage.RCPT, 552, "5.2.2 mailbox is full", FULL),
    (Stage.RCPT, 452, "4.2.2 The email account is over quota", FULL),
    (Stage.RCPT, 552, "Requested mail action aborted: exceeded storage allocation", FULL),
    (Stage.RCPT, 450, "4.2.0 <x@example.com>: Recipient address rejected: Greylisted", LATER),
    (Stage.RCPT, 451, "4.7.1 Greylisting in action, please come back later", LATER),
    (Stage.RCPT, 451, "4.3.0 try later", LATER),
    (Stage.RCPT, 450, "4.7.1 Error: too much mail from 192.0.2.1", TOO_FAST),
    (Stage.RCPT, 554, "5.7.1 <x@example.com>: Relay access denied", ACCOUNT),
    (Stage.RCPT, 550, "5.7.1 Unable to relay", ACCOUNT),
    (Stage.RCPT, 550, "5.7.1 Recipient only takes mail from its own domain", REFUSED),
    (Stage.RCPT, 550, "5.4.1 Recipient address rejected: Access denied", UNREACHABLE),
    (Stage.RCPT, 550, "5.4.5 Daily user sending limit exceeded", TOO_FAST),
    (Stage.RCPT, 550, "5.2.2 user is over quota", FULL),
    (Stage.RCPT, 554, "5.7.1 Service unavailable; Client host [192.0.2.1] blocked using bl.example.net", ACCOUNT),
    (Stage.RCPT, 503, "5.5.1 bad sequence of commands", REFUSED),
    (Stage.BODY, 550, "5.7.1 Message rejected as spam", CONTENT),
    (Stage.BODY, 550, "5.7.26 This mail is unauthenticated", SENDER),
    (Stage.BODY, 554, "Message rejected: Email address is not verified.", SENDER),
    (Stage.BODY, 552, "message too large", CONTENT),
    (Stage.BODY, 554, "Transaction failed", REFUSED),
    (Stage.BODY, 554, "5.6.0 bad MIME", CONTENT),
    (Stage.BODY, 421, "4.7.0 unusual rate of unsolicited mail", TOO_FAST),
    (Stage.BODY, 299, "what?", (Outcome.UNKNOWN, Reason.OUTCOME_UNKNOWN)),
    (Stage.BODY, -1, "what?", (Outcome.UNKNOWN, Reason.OUTCOME_UNKNOWN)),
    (Stage.DATA, 250, "what?", LATER),
]


@pytest.mark.parametrize(("stage", "code", "text", "expected"), ANSWERS)
def test_a_real_answer_means_what_it_should(
    stage: Stage, code: int, text: str, expected: tuple[Outcome, Reason]
) -> None:
    verdict = judge(stage, read_answer(code, text))
    assert (verdict.outcome, verdict.reason) == expected


@pytest.mark.parametrize(
    ("text", "is_suppressed"),
    [
        ("5.1.1 unknown", True),
        ("5.2.1 disabled", True),
        ("no such user", True),
        ("5.1.0 bad", False),
        ("sender user unknown", False),
    ],
)
def test_only_a_clear_answer_suppresses_the_recipient(text: str, is_suppressed: bool) -> None:
    assert judge(Stage.RCPT, read_answer(550, text)).suppress is is_suppressed


RECIPIENT = "bob@example.org"
OURS = ("shop@example.com", "bounces+t0k3n@example.com")
_UNDELIVERABLE = "5.1.1 <bob@example.org>: Recipient address rejected: undeliverable address: host mx.example.org"

#: Answers that hold the same words, and are about different things.
SUBJECTS: list[tuple[Stage, int, str, Verdict]] = [
    # What another server said is never about our account, and its code beats that of the server that repeats it.
    (
        Stage.RCPT,
        550,
        f"{_UNDELIVERABLE}[192.0.2.5] said: 554 5.7.1 <bob@example.org>: Relay access denied (in reply to RCPT TO "
        "command)",
        DESTINATION_REFUSED,
    ),
    (Stage.RCPT, 550, f"{_UNDELIVERABLE} said: 550 5.7.1 no (in reply to RCPT TO command)", NOT_FOR_RECIPIENT),
    (Stage.RCPT, 550, f"{_UNDELIVERABLE} said: 550 5.1.1 <bob@example.org> unknown", NO_SUCH_RECIPIENT),
    (
        Stage.RCPT,
        550,
        f"{_UNDELIVERABLE} said: 550 5.1.8 <shop@example.com>: Sender rejected (in reply to MAIL FROM command)",
        SENDER_REFUSED_HERE,
    ),
    (
        Stage.RCPT,
        550,
        "mx.example.org [192.0.2.5]: response to RCPT TO was: 530 Log in first",
        DESTINATION_REFUSED,
    ),
    # A relay's own "no": nobody can tell from one answer whether it means us or this domain.
    (Stage.RCPT, 554, "5.7.1 <bob@example.org>: Relay access denied", REFUSED_HERE),
    (Stage.RCPT, 530, "5.7.1 Authentication required", REFUSED_HERE),
    # A sandbox: the address that is named is meant.
    (
        Stage.BODY,
        554,
        "Message rejected: Email address is not verified. The following identities failed the check in region "
        "EU-WEST-1: bob@example.org",
        NOT_FOR_RECIPIENT,
    ),
    (
        Stage.BODY,
        554,
        "Message rejected: Email address is not verified. The following identities failed the check in region "
        "EU-WEST-1: Shop <Shop@Example.com>, bob@example.org",
        SENDER_REFUSED,
    ),
    # Senders that are refused in the answer to RCPT.
    (Stage.RCPT, 550, "5.1.0 <shop@example.com>: Sender address rejected: User unknown", SENDER_REFUSED_HERE),
    (Stage.RCPT, 550, "Verification failed for <shop@example.com>\nNo Such User Here", SENDER_REFUSED_HERE),
    (Stage.RCPT, 550, "No Such User Here: bounces+t0k3n@example.com", SENDER_REFUSED_HERE),
    (Stage.RCPT, 550, "5.1.1 <shop@example.com>: User unknown", SENDER_REFUSED_HERE),
    (Stage.RCPT, 550, "Sender verify failed", SENDER_REFUSED_HERE),
    (Stage.MAIL, 553, "5.7.1 <shop@example.com>: Sender address rejected: not owned by user", SENDER_REFUSED),
    (Stage.MAIL, 550, "5.1.7 bad sender", SENDER_REFUSED),
    (Stage.MAIL, 550, "5.7.60 no permission to send as this sender", SENDER_REFUSED),
    # The recipient.
    (Stage.RCPT, 550, "5.1.1 <BOB@example.org>: User unknown", NO_SUCH_RECIPIENT),
    (Stage.RCPT, 550, "5.1.1 no such user", NO_SUCH_RECIPIENT),
    # The target of an alias: the alias may have others.
    (Stage.RCPT, 550, "5.1.1 <old@example.net>: User unknown", BAD_RECIPIENT),
    (Stage.RCPT, 550, "5.7.124 RESOLVER.RST.NotAuthorized: sender not in allowed-senders list", NOT_FOR_RECIPIENT),
]


@pytest.mark.parametrize(("stage", "code", "text", "expected"), SUBJECTS)
def test_an_answer_is_about_whom_it_names_and_whoever_said_it(
    stage: Stage, code: int, text: str, expected: Verdict
) -> None:
    assert judge(stage, read_answer(code, text), recipient=RECIPIENT, ours=OURS) == expected


@pytest.mark.parametrize(
    "text",
    [
        "5.2.1 mailbox temporarily disabled, try again later",
        "5.1.1 Return address rejected: user unknown",
        "No such user: callback to mail server for your address failed",
        "5.1.1 unknown user: sender callout failed",
        "5.1.1 From address unknown",
        "5.1.1 Direccion del remitente desconocida",
        "5.1.1 Indirizzo del mittente inesistente",
        "5.1.1 <bob@example.org>: rejected: unverified address: Address verification in progress",
        "5.1.1 <bob@example.org>: user unknown or your IP is listed at spamhaus",
        "5.1.1 user unknown, or refused by our policy",
        "5.1.1 mailbox unavailable, storage limit reached",
        "5.1.1 user unknown: too many messages",
        "5.1.1 user unknown: retry timeout exceeded",
        # Our address or domain, however it is spelled.
        "5.1.1 User unknown: shop=40example.com",
        "5.1.1 User unknown: shop%40Example.com",
        "5.1.1 User unknown: shop @ example.com",
        "5.1.1 User unknown: shop (at) example.com",
        "5.1.1 User unknown: SRS0=ab=cd=example.com=shop@fwd.example.net",
        "5.1.1 User unknown: prvs=1a2b=shop=example.com@fwd.example.net",
        "5.1.1 shop+x@example.com User unknown",
        "5.1.1 User unknown at example.com",
    ],
)
def test_words_that_say_otherwise_suppress_nobody(text: str) -> None:
    verdict = judge(Stage.RCPT, read_answer(550, text), recipient=RECIPIENT, ours=OURS)
    assert not verdict.suppress
    repeated = f"{_UNDELIVERABLE} said: 550 {text}"
    assert not judge(Stage.RCPT, read_answer(550, repeated), recipient=RECIPIENT, ours=OURS).suppress


@pytest.mark.parametrize(
    "text",
    [
        "5.1.1 User unknown",
        "5.1.1 <bob@example.org>: Recipient address rejected: User unknown in virtual mailbox table",
        "5.1.1 bob=40example.org unknown",
        "5.1.1 user unknown (mail.example.com)",
        "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient bob@example.org not found by SMTP address lookup",
    ],
)
def test_a_plain_answer_still_suppresses(text: str) -> None:
    assert judge(Stage.RCPT, read_answer(550, text), recipient=RECIPIENT, ours=OURS) == NO_SUCH_RECIPIENT


@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DATA, Stage.BODY])
@pytest.mark.parametrize(
    ("code", "text"),
    [
        (530, "5.7.0 authentication required"),
        (535, "no"),
        (550, "5.7.25 reverse DNS failed"),
        (550, "5.7.8 no"),
        (550, "5.7.13 recipient bob@example.org account disabled"),
        (554, "5.7.1 <bob@example.org>: Relay access denied"),
        (
            554,
            "5.7.1 id=12345-01, from MTA(smtp:[127.0.0.1]:10025): 554 5.7.1 <bob@example.org>: Relay access "
            "denied",
        ),
    ],
)
def test_after_mail_an_answer_about_our_account_is_in_doubt(stage: Stage, code: int, text: str) -> None:
    assert judge(stage, read_answer(code, text), recipient=RECIPIENT, ours=OURS) == REFUSED_HERE


@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DATA, Stage.BODY])
@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("4.2.1 mailbox busy, closing", Subject.RECIPIENT),
        ("4.1.1 not now", Subject.RECIPIENT),
        ("4.4.1 no route", Subject.RECIPIENT),
        ("<bob@example.org> busy, closing", Subject.RECIPIENT),
        ("4.3.2 shutting down", Subject.PROVIDER),
        ("4.4.2 timeout exceeded", Subject.PROVIDER),
        ("closing", Subject.PROVIDER),
    ],
)
def test_a_server_that_closes_because_of_one_mailbox_works(stage: Stage, text: str, subject: Subject) -> None:
    verdict = judge(stage, read_answer(421, text), recipient=RECIPIENT, ours=OURS)
    assert (verdict.outcome, verdict.subject) == (Outcome.UNAVAILABLE, subject)


def test_classes_that_contradict_each_other_suppress_nobody() -> None:
    later = judge(Stage.RCPT, read_answer(450, f"{_UNDELIVERABLE} said: 550 5.1.1 no such user"))
    assert (later.outcome, later.suppress) == (Outcome.UNAVAILABLE, False)
    dead = judge(Stage.RCPT, read_answer(550, f"{_UNDELIVERABLE} said: 450 4.2.1 try later"), recipient=RECIPIENT)
    assert (dead.reason, dead.suppress) == (Reason.UNREACHABLE_RECIPIENT, False)


def test_what_is_said_of_our_own_address_as_the_recipient_is_said_of_the_recipient() -> None:
    answer = read_answer(550, "5.1.1 <shop@example.com>: Recipient address rejected: User unknown")
    assert judge(Stage.RCPT, answer, recipient="shop@example.com", ours=OURS) == NO_SUCH_RECIPIENT


@pytest.mark.parametrize(
    "text",
    [
        "5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages",
        "mailbox is full: retry timeout exceeded",
        "5.1.1 <bob@example.org>: mailbox full",
        "retry timeout exceeded",
        "Message expired, delivery time expired",
    ],
)
def test_a_full_busy_or_slow_mailbox_is_not_dead(text: str) -> None:
    verdict = judge(Stage.RCPT, read_answer(550, text), recipient=RECIPIENT)
    assert (verdict.reason, verdict.suppress) == (Reason.UNREACHABLE_RECIPIENT, False)


@pytest.mark.parametrize("text", ["4.7.1 later", "4.2.0 Greylisted", "4.7.0 slow down", "4.2.2 full"])
def test_an_answer_that_asks_for_patience_gets_at_least_five_minutes(text: str) -> None:
    error = judge(Stage.RCPT, read_answer(450, text)).error("")
    assert isinstance(error, Throttled | Unavailable)
    assert error.retry_after_seconds is not None
    assert error.retry_after_seconds >= 300


def test_too_many_connections_are_fewer_in_a_moment() -> None:
    """What five minutes would do to a one-time code."""
    error = judge(Stage.CONNECT, read_answer(421, "4.7.0 too many connections from 192.0.2.1")).error("")
    assert isinstance(error, Throttled)
    assert error.retry_after_seconds is None


@pytest.mark.parametrize("stage", Stage)
def test_every_refusal_has_a_verdict_that_is_none_of_acceptance_and_doubt(stage: Stage) -> None:
    for code in (*range(400, 600, 7), 421, 450, 452, 535, 550, 554, 599):
        assert judge(stage, read_answer(code, "no")).outcome not in (Outcome.ACCEPTED, Outcome.UNKNOWN), code


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.AUTH, Stage.MAIL])
def test_nothing_before_the_recipient_fails_the_message(stage: Stage) -> None:
    assert judge(stage, read_answer(550, "no")).outcome is Outcome.UNAVAILABLE


def test_an_enhanced_code_counts_only_if_it_agrees_with_the_basic_one() -> None:
    assert read_answer(550, "5.1.1 no").code == "550 5.1.1"
    assert read_answer(450, "5.1.1 no").code == "450"
    assert read_answer(550, "5.1.1.1 no").code == "550"


def test_the_text_of_several_lines_repeats_no_code() -> None:
    assert read_answer(550, "5.1.1 one\n5.1.1 two").text == "one two"


def test_every_row_has_a_meaning_and_a_source() -> None:
    assert all(row.meaning and row.source for row in TABLE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.0.0 Ok: queued as 4XyZ12abc", "4XyZ12abc"),
        ("OK id=1rXyZ0-0003Ab-2C", "1rXyZ0-0003Ab-2C"),
        ("2.0.0 OK  1700000000 a1-20020a5d.123 - gsmtp", "a1-20020a5d.123"),
        ("2.0.0 3AB12cD4 Message accepted for delivery", "3AB12cD4"),
        ("2.6.0 <a@b> [InternalId=4711, Hostname=x] Queued mail for delivery", "4711"),
        ("ok 1700000000 qp 2345", "2345"),
        ("Ok 0100018bcdef0123-4567-000000", "0100018bcdef0123-4567-000000"),
        ("2.0.0 thank you", "thank you"),
        ("", ""),
    ],
)
def test_the_queue_id_is_found_in_the_words_of_each_server(text: str, expected: str) -> None:
    assert queue_id(text) == expected


@pytest.mark.parametrize("code", ["5.1.１", "5.١.1"])
def test_a_code_in_other_digits_is_none(code: str) -> None:
    assert read_answer(550, f"{code} no such user").enhanced == ""
