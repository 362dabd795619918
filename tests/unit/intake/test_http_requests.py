"""A request without a fault is read at once, all others step by step: both ways come to the same."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.errors import Fault, InvalidMessage
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import Entry
from notifier.intake import http_requests
from notifier.intake.http_requests import read_request
from tests.unit.domain.test_faultless_bodies import NOW, bodies

GOOD = {"channel": "email", "to": "ann@example.com", "template": "hello", "idempotency_key": "1001"}


def written(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def read(body: bytes, producer: str = "shop", key: str | None = None) -> Entry | list[Fault]:
    try:
        return read_request(body, producer, key, now=NOW)
    except InvalidMessage as error:
        return list(error.faults)


def assert_same(body: bytes, producer: str = "shop", key: str | None = None) -> None:
    found = read(body, producer, key)
    with patch.object(http_requests, "read_faultless", return_value=None):
        expected = read(body, producer, key)
    if not isinstance(found, Entry) or not isinstance(expected, Entry):
        assert found == expected
        return
    assert (found.message, found.faults) == (expected.message, expected.faults)
    if found.message is not None and expected.message is not None:
        # Equal values may differ in type and order.
        assert repr(found.message) == repr(expected.message)
        assert found.message.model_fields_set == expected.message.model_fields_set


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (written(), None),
        (written(), "1001"),
        (written(lane="urgent", producer="shop", context={"a": [1, 2.5, None]}), None),
        (b'{"channel":"email","to":"ann@example.com","template":"hello"}', 'a "key" \u00e9'),
    ],
)
def test_what_has_no_fault_is_read_at_once(body: bytes, key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same(body, key=key)
    monkeypatch.setattr(http_requests, "decode", None)
    entry = read_request(body, "shop", key, now=NOW)
    assert entry.message is not None
    assert entry.message.producer == "shop"


@pytest.mark.parametrize("key", [None, "1001", "other", "NaN", "a\0b", "", "\udc00"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"producer": "bank"},
        {"producer": None},
        {"producer": 1},
        {"lane": None},
        {"lane": "soon"},
        {"channel": None},
        {"channel": "sms"},
        {"idempotency_key": None},
        {"idempotency_key": ""},
        {"to": "nobody"},
        {"context": {"a": "\0"}},
        {"task": "x", "args": []},
        {"batch": []},
    ],
)
def test_every_field_that_is_known_or_missing(fields: dict[str, Any], key: str | None) -> None:
    assert_same(written(**fields), key=key)


@pytest.mark.parametrize("body", [b"{}", b"{", b"[]", b"", b" {}", b"{" + b" " * 10 + b"}", b'{"channel":"email"'])
def test_every_beginning(body: bytes) -> None:
    assert_same(body)


@given(bodies(), st.sampled_from(["", *Channel]), st.sampled_from(["", *Lane]), st.sampled_from([None, "1001"]))
def test_any_message(body: bytes, channel: str, lane: str, key: str | None) -> None:
    named = (f',"channel":"{channel}"' if channel else "") + (f',"lane":"{lane}"' if lane else "")
    assert_same(body[:-1] + named.encode() + b"}", key=key)
