"""The bytes of contract version 1 are pinned: what was published once stays readable, and hashes the same.

A golden file is never edited. A change of the contract that needs one is version 2.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import parse_body
from notifier.security.body_hash import body_hash

GOLDEN = Path(__file__).parent / "golden"
NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
ID = UUID("01a20453-7074-712e-ad79-a7e65f4073d0")

MESSAGES = {
    "email_minimal.v1.json": Message(
        idempotency_key="order-1001-shipped",
        producer="shop",
        channel=Channel.EMAIL,
        lane=Lane.NORMAL,
        to="ann@example.com",
        template="order_shipped",
    ),
    "email_full.v1.json": Message(
        idempotency_key="receipt-2002",
        id=ID,
        producer="shop",
        channel=Channel.EMAIL,
        lane=Lane.NORMAL,
        to="Zoé Lefèvre <zoe@example.com>",
        template="receipt",
        context={"items": [{"name": "茶", "price": "12.50", "quantity": 2}], "paid": True, "note": None},
        locale="fr-CA",
        sender="shop",
        reply_to="support",
        reference="2002",
        metadata={"cart": "c-77"},
        send_at=datetime(2026, 11, 22, 10, 0, tzinfo=UTC),
        expires_at=datetime(2026, 11, 23, 10, 0, 0, 500_000, tzinfo=UTC),
        callback_url="https://shop.example.com/hooks/notify",
    ),
    "sms_by_id.v1.json": Message(
        id=ID,
        producer="auth",
        channel=Channel.SMS,
        lane=Lane.URGENT,
        to="+15550100123",
        template="login_code",
        context={"code": "042137"},
        expires_at=datetime(2026, 11, 22, 9, 35, tzinfo=UTC),
    ),
}

HASHES = json.loads((GOLDEN / "hashes.v1.json").read_text())


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_written_as_ever(name: str) -> None:
    assert MESSAGES[name].encode() == (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_of_version_1_is_read_as_ever(name: str) -> None:
    expected = MESSAGES[name]
    assert expected.channel is not None
    assert expected.lane is not None
    (entry,) = parse_body((GOLDEN / name).read_bytes(), expected.channel, expected.lane, now=NOW)
    assert entry.message == expected


@pytest.mark.parametrize("name", MESSAGES)
def test_the_hash_behind_an_idempotency_key_never_changes(name: str) -> None:
    assert body_hash(MESSAGES[name]).hex() == HASHES[name]


def test_a_batch_of_version_1_is_read_as_ever() -> None:
    body = (GOLDEN / "batch.v1.json").read_bytes()
    entries = parse_body(body, Channel.EMAIL, Lane.BULK, now=NOW)
    assert [entry.message and entry.message.to for entry in entries] == ["ann@example.com", "bob@example.com"]
    assert entries[1].message is not None
    assert entries[1].message.context == {"week": "47", "name": "Bob"}


def test_a_cloud_event_of_version_1_is_read_as_ever() -> None:
    body = (GOLDEN / "cloud_event.v1.json").read_bytes()
    (entry,) = parse_body(body, Channel.EMAIL, Lane.NORMAL, now=NOW)
    assert entry.message == Message(
        idempotency_key="https://shop.example.com/orders 7f3a",
        producer="shop",
        channel=Channel.EMAIL,
        lane=Lane.NORMAL,
        to="ann@example.com",
        template="order_shipped",
        context={"order_id": "C-10482"},
    )
