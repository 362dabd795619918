from __future__ import annotations

import re
from uuid import UUID

import pytest

from notifier.domain.message import new_id
from notifier.domain.statuses import Channel
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import Tokens, UnsubscribeLink

KEY = HashKey("a key for tests only")
TOKENS = Tokens(KEY, bounce_address="Bounces@Example.com", public_url="https://notify.example.com/")
ID = UUID("0198c0de-0000-7000-8000-000000000001")


def path(attempt: int = 1) -> str:
    made = TOKENS.return_path(ID, attempt)
    assert made is not None
    return made


def link(category: str = "digest", locale: str = "fr-CA") -> str:
    return TOKENS.unsubscribe_url(ID, Channel.EMAIL, "Ann <Ann@Example.com>", category, locale)


def test_a_return_path_names_its_attempt_and_fits_into_a_local_part() -> None:
    for attempt in (1, 2, 300, 65_535):
        assert TOKENS.read_return_path(path(attempt)) == (ID, attempt)
        assert re.fullmatch(r"Bounces\+[a-z2-7]{48}@Example\.com", path(attempt))
    longest = Tokens(KEY, bounce_address=f"{'b' * 15}@example.com").return_path(new_id(), 1)
    assert longest is not None
    assert len(longest.partition("@")[0]) == 64


def test_servers_may_fold_its_case_and_put_it_into_brackets() -> None:
    for folded in (path().upper(), path().lower(), path().swapcase(), f"<{path()}>"):
        assert TOKENS.read_return_path(folded.strip("<>")) == (ID, 1)
        assert TOKENS.is_bounce_address(folded)


def test_no_letter_of_it_can_be_changed() -> None:
    made = path()
    for position in range(8, 8 + 48):
        other = "a" if made[position] != "a" else "b"
        assert TOKENS.read_return_path(made[:position] + other + made[position + 1 :]) is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "@",
        "bounces@example.com",
        "bounces+@example.com",
        f"bounces+{'a' * 48}@example.com",
        f"bounces+{'1' * 48}@example.com",
        f"bounces+{'é' * 48}@example.com",
        f"bounces+{'a' * 10_000}@example.com",
        "bounces+" + "a" * 40 + "========@example.com",
        path().replace("@Example", "@other"),
        path().replace("Bounces", "returns"),
        path().replace("+", "-"),
        path().replace("+", "+x"),
    ],
)
def test_what_is_no_return_path_of_ours_is_none(address: str) -> None:
    assert TOKENS.read_return_path(address) is None


def test_another_key_or_purpose_makes_other_tokens() -> None:
    other = Tokens(HashKey("another key for tests"), bounce_address="bounces@example.com")
    assert other.read_return_path(path()) is None
    token = link().rpartition("/")[2]
    assert TOKENS.read_return_path(f"bounces+{token[:48]}@example.com") is None
    assert TOKENS.read_link(path().partition("@")[0].partition("+")[2]) is None


def test_without_an_address_there_is_no_return_path_and_no_attempt_is_too_many() -> None:
    assert Tokens(KEY).return_path(ID, 1) is None
    assert not Tokens(KEY).is_bounce_address("+x@")
    assert TOKENS.return_path(ID, 65_536) is None


def test_a_link_says_what_it_ends_and_names_nobody() -> None:
    assert re.fullmatch(r"https://notify\.example\.com/u/[A-Za-z0-9_-]{60,150}", link())
    token = link().rpartition("/")[2]
    expected = UnsubscribeLink(ID, KEY.recipient(Channel.EMAIL, "ann@example.com"), "digest", "fr-CA")
    assert TOKENS.read_link(token) == expected
    longest = link("c" * 100, "x" * 300).rpartition("/")[2]
    read = TOKENS.read_link(longest)
    assert read is not None
    assert read.category == "c" * 100


def test_a_link_knows_who_sent_the_mail_unless_that_name_is_long() -> None:
    for identity, known in (("second shop", "second shop"), ("ö" * 32, "ö" * 32), ("ö" * 33, "")):
        url = TOKENS.unsubscribe_url(ID, Channel.EMAIL, "ann@example.com", "c" * 100, "x" * 35, identity)
        read = TOKENS.read_link(url.rpartition("/")[2])
        assert read is not None
        assert (read.category, read.identity) == ("c" * 100, known)


def test_a_link_that_was_changed_is_none_of_ours() -> None:
    token = link().rpartition("/")[2]
    for position in range(len(token) - 1):
        other = "A" if token[position] != "A" else "B"
        assert TOKENS.read_link(token[:position] + other + token[position + 1 :]) is None
    for broken in ("", "a", token[:-4], token + "AAAA", "é" * 60, "%00", "A" * 100_000, "=" * 50):
        assert TOKENS.read_link(broken) is None


def test_no_link_is_made_or_obeyed_under_the_key_that_everybody_knows() -> None:
    public = Tokens(HashKey(), public_url="https://notify.example.com")
    assert public.unsubscribe_url(ID, Channel.EMAIL, "ann@example.com", "digest", "en") == ""
    assert public.read_link(link().rpartition("/")[2]) is None
    assert Tokens(KEY).unsubscribe_url(ID, Channel.EMAIL, "ann@example.com", "digest", "en") == ""
