"""Addresses as producers write them."""

from __future__ import annotations

import pytest

from notifier.providers.mail.address import Mailbox, parse_mailbox


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zoe@example.com", Mailbox("zoe", "example.com")),
        (" zoe@example.com ", Mailbox("zoe", "example.com")),
        ("<zoe@example.com>", Mailbox("zoe", "example.com")),
        ("Zoé Dupont <zoe@example.com>", Mailbox("zoe", "example.com", "Zoé Dupont")),
        ('"Dupont, Zoé" <zoe@example.com>', Mailbox("zoe", "example.com", "Dupont, Zoé")),
        (r'"Zoé \"Z\" \\ D" <zoe@example.com>', Mailbox("zoe", "example.com", r'Zoé "Z" \ D')),
        ("a\r\nBcc: b <zoe@example.com>", Mailbox("zoe", "example.com", "a Bcc: b")),
        ("o'brien+tag@mail.example.com", Mailbox("o'brien+tag", "mail.example.com")),
        ("zoe@bücher.example", Mailbox("zoe", "xn--bcher-kva.example")),
        ("zoé@例え.example", Mailbox("zoé", "xn--r8jz45g.example")),
        ("root@mailhost", Mailbox("root", "mailhost")),
    ],
)
def test_an_address_is_taken_apart(text: str, expected: Mailbox) -> None:
    assert parse_mailbox(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zoe",
        "@example.com",
        "zoe@",
        "zoe@example..com",
        "zoe@exa mple.com",
        "zoe@example.com, eve@example.com",
        "zoe@example.com\r\nRCPT TO:eve@example.com",
        "zoe@example.com> SIZE=1 <eve@example.com",
        "Zoe <zoe@example.com> <eve@example.com>",
        f"{'x' * 65}@example.com",
        "zoe\x00@example.com",
        "zoe\ud800@example.com",
    ],
)
def test_what_is_not_one_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="address") as refused:
        parse_mailbox(text)
    assert "zoe" not in str(refused.value)
    assert "eve" not in str(refused.value)


def test_only_a_non_ascii_local_part_needs_smtputf8() -> None:
    assert parse_mailbox("zoé@example.com").needs_smtputf8
    assert not parse_mailbox("zoe@bücher.example").needs_smtputf8
