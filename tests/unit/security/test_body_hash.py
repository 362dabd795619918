"""Hashes of bodies are kept: what is hashed must stay what `json.dumps` writes."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane
from notifier.security.body_hash import body_hash, canonical

_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
_CONTENTS = st.dictionaries(st.text(), _JSON, max_size=6)


def by_the_standard_library(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@given(_CONTENTS)
def test_it_is_what_the_standard_library_writes(content: dict[str, Any]) -> None:
    assert canonical(content) == by_the_standard_library(content)


@pytest.mark.parametrize(
    "value",
    [
        *(1e16, 1e-5, -0.0, 5e-324, 1.0, float("nan"), float("-inf"), 123456789012345680.0),
        *(2**53 + 1, 2**63, -(2**63) - 1, 2**64 - 1, 2**64, 10**40),
        *("".join(map(chr, range(0x100))), "\u2028\u2029\ufeff\uffff", "\U0001f600", '</script>"\\'),
        *({"b": 1, "a": {"d": 1, "c": 2}}, {"\uffff": 1, "\U0001f600": 2, "é": 3, "z": 4}),
        *([[1.5]], [{"a": [1e-9]}]),
    ],
)
def test_values_that_writers_of_json_disagree_on(value: Any) -> None:
    assert canonical({"a": value}) == by_the_standard_library({"a": value})


def test_a_producer_without_msgspec_has_the_same_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"b": [1, {"z": None, "a": "é"}], "a": True}
    found = canonical(content)
    monkeypatch.setattr("notifier.security.body_hash._sorted", None)
    assert canonical(content) == found


def test_half_a_character_is_an_error() -> None:
    for content in ({"a": "\ud800"}, {"\ud800": 1}, {"a": "\ud800", "b": 1.5}):
        with pytest.raises(ValueError, match="surrogates not allowed"):
            canonical(content)


def test_the_content_is_that_of_pydantic() -> None:
    full = Message(
        idempotency_key="order-1001",
        id=new_id(),
        producer="shop",
        channel=Channel.EMAIL,
        lane=Lane.URGENT,
        to="ann@example.com",
        template="hello",
        context={"name": None, "items": [{"a": None, "b": 1.5}]},
        locale="de-CH",
        sender="shop",
        reply_to="help",
        reference="C-1001",
        metadata={"campaign": "autumn"},
        send_at=datetime(2026, 11, 23, 9, 30, 0, 1500, tzinfo=UTC),
        expires_at=datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
        callback_url="https://shop.example.com/told",
        attachments=[uuid4(), uuid4()],
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    assert full.model_fields_set == set(Message.model_fields)
    small = Message(id=new_id(), producer="shop", to="ann@example.com", template="hello", attachments=[])
    for message in (full, small):
        # Sent again in another span, it is the same message.
        dumped = message.model_dump(mode="json", exclude_none=True, exclude={"traceparent"})
        assert message.content() == dumped
        assert canonical(message.content()) == by_the_standard_library(dumped)


def test_the_id_is_left_out_where_there_is_a_key() -> None:
    message = Message(id=new_id(), idempotency_key="1", producer="shop", to="ann@example.com", template="hello")
    content = message.content()
    assert body_hash(message, content) == body_hash(message)
    assert "id" in content
    content.pop("id")
    assert body_hash(message) == hashlib.sha256(by_the_standard_library(content)).digest()
