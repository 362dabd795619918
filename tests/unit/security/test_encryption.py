"""What is sealed opens with its key and in its place only, and names the key that is missing."""

from __future__ import annotations

import base64

import pytest

from notifier.domain.errors import CannotOpen
from notifier.security.encryption import Sealer, new_key, read_keys

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
PLACE = "notifications.sealed:1"


def test_what_was_sealed_opens_under_any_of_the_keys() -> None:
    sealed = Sealer({"old": OLD}).seal(PLACE, b"ann@example.com")
    both = Sealer({"new": NEW, "old": OLD})
    assert both.open(PLACE, sealed) == b"ann@example.com"
    assert both.seal(PLACE, b"").startswith(both.header)
    assert both.header == b"\x01\x03new"
    assert b"ann" not in sealed


def test_the_same_content_is_never_sealed_alike() -> None:
    sealer = Sealer({"old": OLD})
    assert sealer.seal(PLACE, b"042137") != sealer.seal(PLACE, b"042137")


def test_a_missing_key_is_named_with_what_to_do() -> None:
    sealed = Sealer({"2026-11": OLD}).seal(PLACE, b"x")
    for sealer in (Sealer(), Sealer({"new": NEW})):
        with pytest.raises(CannotOpen, match="key 2026-11, which is missing: add it to NOTIFIER_ENCRYPTION_KEYS"):
            sealer.open(PLACE, sealed)


def test_it_opens_nowhere_else_and_not_after_a_change() -> None:
    sealer = Sealer({"old": OLD})
    sealed = sealer.seal(PLACE, b"ann@example.com")
    with pytest.raises(CannotOpen, match="does not open"):
        sealer.open("notifications.sealed:2", sealed)
    with pytest.raises(CannotOpen, match="does not open"):
        sealer.open(PLACE, sealed[:-1] + bytes((sealed[-1] ^ 1,)))
    with pytest.raises(CannotOpen, match="does not open"):
        Sealer({"old": NEW}).open(PLACE, sealed)


@pytest.mark.parametrize(
    "damaged", [b"", b"\x01", b"\x01\x00", b"\x02\x03old" + bytes(40), b"\x01\xff" + bytes(40)]
)
def test_what_is_no_sealed_value_is_an_error_of_its_own(damaged: bytes) -> None:
    with pytest.raises(CannotOpen, match="damaged"):
        Sealer({"old": OLD}).open(PLACE, damaged)


def test_keys_are_read_with_commas_spaces_or_lines_between() -> None:
    one, two = new_key("one"), new_key("two")
    assert list(read_keys(f"{two},{one}")) == list(read_keys(f" {two}\n{one}\n")) == ["two", "one"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "key 1 is not written as"),
        ("c2VjcmV0", "key 1 is not written as"),
        ("a b:c2VjcmV0", "key 1 is not written as"),
        ("a:c2VjcmV0", "the key a is not 32 bytes"),
        ("a:not base64", "the key a is not 32 bytes"),
        (f"a:{base64.b64encode(OLD).decode()},a:{base64.b64encode(NEW).decode()}", "two keys have the id a"),
    ],
)
def test_a_wrong_key_is_refused_without_showing_it(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        read_keys(text)
    assert "c2VjcmV0" not in str(raised.value)


def test_no_key_is_in_what_is_printed() -> None:
    assert repr(Sealer({"a": OLD})) == "Sealer(a)"
    assert repr(Sealer()) == "Sealer(off)"
