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
from notifier.intake.http_requests import read_batch_request, read_request
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


def found(fields: dict[str, Any]) -> set[tuple[str, str]]:
    body = json.dumps(fields).encode()
    entry = read_request(body, "shop", now=NOW, channel_of={"code": Channel.SMS}.get)  # type: ignore[arg-type]
    assert entry.message is None
    return {(fault.field, fault.code) for fault in entry.faults}


def test_a_fault_of_form_hides_no_other() -> None:
    unkeyed = {**GOOD, "idempotency_key": None}
    assert found({**unkeyed, "lane": "zz"}) == {("lane", "bad_choice"), ("", "no_key")}
    assert found({**unkeyed, "to": 5}) == {("to", "wrong_type"), ("", "no_key")}
    times = {"send_at": "2026-05-02T00:00:00Z", "expires_at": "2026-05-01T00:00:00Z"}
    together = {("", "no_key"), ("", "expires_before_send")}
    assert found({**unkeyed, **times}) == together
    assert found({**unkeyed, **times, "lane": 5}) == {("lane", "bad_choice"), *together}
    # It may have been one of them.
    assert found({**unkeyed, "id": "x"}) == {("id", "bad_id")}
    assert found({**unkeyed, "idempotency_key": ""}) == {("idempotency_key", "too_short")}


@pytest.mark.parametrize("named", [{}, {"channel": "fax"}])
@pytest.mark.parametrize(
    ("to", "template", "assumed"),
    [
        ("ann@@example", "code", Channel.EMAIL),
        ("+0", "hello", Channel.SMS),
        ("015550100123", "code", Channel.SMS),
        ("015550100123", "hello", Channel.EMAIL),
        (5, "code", Channel.SMS),
    ],
)
def test_without_a_channel_the_rest_is_checked_by_the_one_that_it_seems_to_be_for(
    named: dict[str, str], to: Any, template: str, assumed: Channel
) -> None:
    fields = {"to": to, "template": template, "idempotency_key": "1", **named}
    entry = read_request(json.dumps(fields).encode(), "shop", now=NOW, channel_of={"code": Channel.SMS}.get)  # type: ignore[arg-type]
    assert entry.message is None
    assert [fault.field for fault in entry.faults] == ["channel", "to"]
    assert entry.draft is not None
    assert entry.draft.message.channel is assumed
    assert (entry.faults[1].problem == "neither an e-mail address nor a number in E.164") is (to == "015550100123")


def test_a_batch_that_is_wrong_as_a_whole_tells_of_its_entries_too() -> None:
    entries = [{"to": "x@y.example", "channel": "email", "idempotency_key": "1"}, {"to": "x"}, 5]
    whole = {"defaults": {"context": {}, "colour": 1}, "template": "no name", "rate": 5, "batch": entries}
    batch = read_batch_request(json.dumps(whole).encode(), "shop", now=NOW)
    assert {(one.field, one.code) for one in batch.faults} == {
        ("rate", "unknown_field"),
        ("template", "bad_format"),
        ("defaults.colour", "unknown_field"),
    }
    assert [{one.code for one in entry.faults} for entry in batch.entries] == [
        set(),
        {"missing", "too_short", "no_key"},
        {"not_an_object"},
    ]


@given(bodies(), st.sampled_from(["", *Channel]), st.sampled_from(["", *Lane]), st.sampled_from([None, "1001"]))
def test_any_message(body: bytes, channel: str, lane: str, key: str | None) -> None:
    named = (f',"channel":"{channel}"' if channel else "") + (f',"lane":"{lane}"' if lane else "")
    assert_same(body[:-1] + named.encode() + b"}", key=key)
