from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.statuses import Status
from notifier.feedback.bounce_meaning import Whose, meaning_of, spellings_of
from notifier.feedback.bounce_parser import read_mail
from notifier.feedback.bounce_report import Action, Bounce
from notifier.providers.mail.codes import SmtpReply
from tests.support.bounce_corpus import RECIPIENT, RETURN_PATH, SENDER, failed

WORDS = ("User unknown", "No Such User Here", "mailbox does not exist", "Recipient address rejected", "")
CODES = ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1", "5.0.0", "")


def whose(address: str) -> Whose:
    if address.lower() == RECIPIENT:
        return Whose.THEIRS
    return Whose.OURS if address.lower() in (SENDER, RETURN_PATH) else Whose.OTHERS


@pytest.mark.parametrize(
    "ours", [SENDER, SENDER.upper(), RETURN_PATH, f"SRS0=ab=cd=example.com=shop@{'example.org'}"]
)
def test_an_answer_that_names_an_address_of_ours_suppresses_nobody(ours: str) -> None:
    for code, words in product(CODES, WORDS):
        read = read_mail(failed("5.1.1", f"smtp; 550 {code} <{ours}>: {words}"))
        assert isinstance(read.report, Bounce)
        meaning = meaning_of(read.report, whose)
        assert (meaning.status, meaning.is_dead, meaning.is_soft) == (Status.UNDELIVERED, False, False)


@pytest.mark.parametrize(
    "other", ["5.7.1", "5.2.2", "5.7.26", "5.6.0", "5.3.4", "5.4.1", "4.2.2", "4.1.1", "5.1.8"]
)
def test_the_code_of_the_server_beats_that_of_the_report(other: str) -> None:
    read = read_mail(failed("5.1.1", f"smtp; {other[0]}50 {other} it said so"))
    assert isinstance(read.report, Bounce)
    assert read.report.answer.enhanced == other
    assert not meaning_of(read.report, whose).is_dead


@given(
    st.sampled_from(list(Action)),
    st.sampled_from(["", "250", "450", "550", "554", "999"]),
    st.sampled_from([*CODES, "5.2.2", "4.2.2", "5.7.1"]),
    st.lists(
        st.sampled_from([RECIPIENT, SENDER, "ann@example.org", "user unknown", "full", "550 5.1.1"]), max_size=4
    ),
    st.lists(st.sampled_from([RECIPIENT, "ann@example.org"]), max_size=2),
)
def test_nobody_else_and_no_sender_is_ever_taken_for_the_recipient(
    action: Action, basic: str, enhanced: str, words: list[str], named: list[str]
) -> None:
    bounce = Bounce(action, SmtpReply(basic, enhanced, " ".join(words)), named=tuple(named))
    meaning = meaning_of(bounce, whose)
    if SENDER in words or "ann@example.org" in named or meaning.status is not Status.UNDELIVERED:
        assert not meaning.is_dead


def test_encoded_addresses_are_read() -> None:
    assert "zoe@example.net" in spellings_of("zoe+40example.net")
    assert "zo\xe9@example.net" in spellings_of("zo\\x{E9}@example.net")
    assert "zoe+tag@example.net" in spellings_of("zoe+tag@example.net")
