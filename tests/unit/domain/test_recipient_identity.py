"""One identity for each mailbox and number, whatever the spelling; what is no recipient is told at the door."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from pydantic import ValidationError

from notifier.config.structure import Structure
from notifier.domain.errors import InvalidMessage
from notifier.domain.recipient_identity import earlier_forms, recipient_faults, recipient_identity
from notifier.domain.statuses import Channel
from notifier.providers.mail.address import parse_mailbox
from notifier.security.recipient_hash import HashKey
from notifier.store.search import Filter

#: Digits of other scripts, all of them, one in the middle, and none at all.
NOT_NUMBERS = (
    "+１５５５０１００１８４",
    "+１５５５０１００１２３",
    "+١٥٥٥٠١٠٠١٢٣",
    "+1٥٥٥٠١٠٠١٢٣",
    "+1555010٠123",
    "+१५५५०१००१२३",
    "+1555010\U0001d7d0123",
    "+1555010²123",
    "＋15550100123",
    "+15550100123\n",
    " +15550100123",
    "+05550100123",
    "+155501",
    "+1555010012345678",
    "15550100123",
)
ZOE = (
    "zoe@bücher.example",
    "Zoe <zoe@BÜCHER.example>",
    "zoe@xn--bcher-kva.example",
    "ZOE@XN--BCHER-KVA.EXAMPLE",
    unicodedata.normalize("NFD", "zoe@bücher.example"),
    "zoe@bücher。example",
    "zoe@ｂücher．ｅxample",
    "zoe@bü\u00adcher.example",
)


@pytest.mark.parametrize("number", NOT_NUMBERS, ids=ascii)
def test_what_is_not_in_ascii_digits_is_no_number_wherever_one_is_read(number: str) -> None:
    [fault] = recipient_faults(number, Channel.SMS)
    assert fault.code == ("bad_recipient" if number.endswith("\n") else "not_e164")
    if number == number.strip():
        with pytest.raises(InvalidMessage, match=r"not an E\.164 number"):
            Filter(recipient=number)


@pytest.mark.parametrize("prefix", ["+１", "+1٥", "+१"])
def test_a_prefix_is_of_ascii_digits(prefix: str) -> None:
    with pytest.raises(ValidationError):
        Structure(sms_prefixes=(prefix,))


def test_the_spellings_of_one_mailbox_are_one_and_what_the_mail_goes_to_is_it() -> None:
    assert {recipient_identity(spelling) for spelling in ZOE} == {"zoe@xn--bcher-kva.example"}
    assert {parse_mailbox(spelling).domain.lower() for spelling in ZOE} == {"xn--bcher-kva.example"}
    assert not any(recipient_faults(spelling, Channel.EMAIL) for spelling in ZOE)
    assert len({HashKey().recipient(Channel.EMAIL, spelling) for spelling in ZOE}) == 1


def test_a_local_part_is_composed_and_in_lower_case_and_no_more() -> None:
    assert (
        recipient_identity("ZOE\u0308@example.com") == recipient_identity("zoë@EXAMPLE.com") == "zoë@example.com"
    )
    different = (
        "ann@example.com",
        "a.nn@example.com",
        "ann+shop@example.com",
        "\uff41nn@example.com",
        "аnn@example.com",
    )
    assert len({recipient_identity(address) for address in different}) == len(different)


@pytest.mark.parametrize(
    "to",
    ["ann@example.com", "Ann <Ann@Example.COM>", "o'hara+x@sub.example.org", "+15550100123", "a@ab--cd.example"],
)
def test_an_ordinary_recipient_is_what_it_always_was(to: str) -> None:
    """Another value would leave suppressions that were made before unfound."""
    before = to[to.rindex("<") + 1 : -1].lower() if to.endswith(">") else to.lower()
    assert (recipient_identity(to), earlier_forms(to)) == (before, ())


def test_deviations_of_the_old_standard_are_names_of_their_own() -> None:
    assert recipient_identity("a@faß.example") != recipient_identity("a@fass.example")
    assert recipient_identity("a@βόλος.example") != recipient_identity("a@βόλοσ.example")


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("ann", "not an e-mail address"),
        ("@example.net", "not an e-mail address"),
        ("ann@", "not an e-mail address"),
        ("ann@[192.0.2.1]", "IP address in brackets"),
        ("ann@[IPv6:2001:db8::1]", "IP address in brackets"),
        ('"ann lee"@example.com', "in quotes"),
        ("ann@example.com.", "ends with a dot"),
        ("ann@bücher.example。", "internationalised"),
        ("ann@example..com", "is empty"),
        ("ann@.example.com", "is empty"),
        ("ann@-example.com", "not one"),
        ("ann@exa_mple.com", "not one"),
        ("ann@exa mple.com", "not one"),
        ("ann@" + "a" * 64 + ".example", "too long"),
        ("ann@" + "ü" * 64 + ".example", "internationalised"),
        ("ann@" + ".".join(["a" * 60] * 5), "too long"),
        ("a" * 65 + "@example.com", "longer than 64"),
        ("é" * 33 + "@example.com", "longer than 64"),
        ("ann@xn--a.example", "internationalised"),
        ("ann@☃.example", "internationalised"),
        ("ann@1א.example", "internationalised"),
        ("ann@ex\u200dample.com", "internationalised"),
        ("a..b@example.com", "characters or dots"),
        (".ann@example.com", "characters or dots"),
        ("ann@ben@example.com", "characters or dots"),
        ("ann lee@example.com", "characters or dots"),
        ("<ann@example.com> <ben@example.com>", "several"),
        ("ann@example.com, ben@example.com", "characters or dots"),
    ],
    ids=ascii,
)
def test_what_is_no_address_is_told_with_the_reason_and_without_the_address(to: str, words: str) -> None:
    [fault] = recipient_faults(to, Channel.EMAIL)
    assert (fault.code, fault.field) == ("not_an_address", "to")
    assert words in fault.problem
    assert len(to) < 6 or to not in str(fault)


@pytest.mark.parametrize("to", ["", "@", "a@", "Ann", "<>", "x@xn--", "a@\ud800", "a@" + "ü" * 300, "ａ"])
def test_whatever_comes_has_an_identity(to: Any) -> None:
    assert isinstance(recipient_identity(to), str)
    assert isinstance(earlier_forms(to), tuple)
    assert len(HashKey().recipient(Channel.EMAIL, to)) == 32


def test_the_identity_of_an_identity_is_itself() -> None:
    for to in (*ZOE, "ZOE\u0308@example.com", "ΣΑΣ@example.com", "İ@example.com", "a@xn--ls8h.la", "a@☃.example"):
        assert recipient_identity(recipient_identity(to)) == recipient_identity(to)


@pytest.mark.parametrize(
    "odd", ["\u200b", "\ufeff", "\xa0", "\u202e", "\u3000", "\xad", "\u2060", "\U000e0001", ";"]
)
def test_an_address_with_what_nobody_sees_is_refused_wherever_one_is_read(odd: str) -> None:
    for address in (f"ad{odd}a@example.com", f"Ada <a{odd}da@example.com>"):
        [fault] = recipient_faults(address, Channel.EMAIL)
        assert fault.code in ("not_an_address", "bad_recipient")
