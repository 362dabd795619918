"""Keyed hashes stand for recipients, and tell nothing about them."""

from __future__ import annotations

from notifier.domain.statuses import Channel
from notifier.security.recipient_hash import HashKey

KEY = HashKey("a key of sixteen or more")


def test_a_recipient_has_one_hash_however_they_are_written() -> None:
    assert KEY.recipient(Channel.EMAIL, "Ada <Ada@Example.com>") == KEY.recipient(Channel.EMAIL, "ada@example.com")
    assert len(KEY.recipient(Channel.SMS, "+15550100123")) == 32


def test_channel_key_and_purpose_each_make_another_hash() -> None:
    hashes = {
        KEY.recipient(Channel.EMAIL, "ada@example.com"),
        KEY.recipient(Channel.SMS, "ada@example.com"),
        HashKey().recipient(Channel.EMAIL, "ada@example.com"),
        KEY.digest("unsubscribe", "email", "ada@example.com"),
        KEY.digest("recipientemail", "ada@example.com"),
    }
    assert len(hashes) == 5


def test_the_fingerprint_tells_keys_apart_and_the_key_is_not_shown() -> None:
    assert KEY.fingerprint != HashKey().fingerprint
    assert "sixteen" not in repr(KEY)
    assert HashKey().is_public
    assert not KEY.is_public


def test_these_hashes_never_change() -> None:
    # Another value would leave every suppression that was ever made unfound.
    assert HashKey("k" * 16).recipient(Channel.SMS, "+15550100123").hex().startswith("890d40eb59a6491c")
