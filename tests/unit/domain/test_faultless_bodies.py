"""A body without a fault is read at once, all others step by step: both ways come to the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain import validation
from notifier.domain.message import MAX_BODY_BYTES, MAX_NUMBER, Message, new_id
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import Entry, parse_body

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
ID = str(new_id(NOW.timestamp()))
GOOD = b'"idempotency_key":"1001","producer":"shop","to":"ann@example.com","template":"hello"'


def at_once(body: bytes, channel: Channel = Channel.EMAIL, lane: Lane = Lane.NORMAL) -> list[Entry]:
    return parse_body(body, channel, lane, now=NOW)


def step_by_step(body: bytes, channel: Channel = Channel.EMAIL, lane: Lane = Lane.NORMAL) -> list[Entry]:
    with patch.object(validation, "_read_faultless", return_value=None):
        return parse_body(body, channel, lane, now=NOW)


def assert_same(body: bytes, channel: Channel = Channel.EMAIL, lane: Lane = Lane.NORMAL) -> None:
    found, expected = at_once(body, channel, lane), step_by_step(body, channel, lane)
    assert found == expected
    for one, other in zip(found, expected, strict=True):
        if one.message is not None and other.message is not None:
            # Equal values may differ in type and order.
            assert repr(one.message) == repr(other.message)
            assert one.message.model_fields_set == other.message.model_fields_set


def with_field(name: str, value: str) -> bytes:
    return b"{" + GOOD + f',"{name}":{value}'.encode() + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"{" + GOOD + b"}",
        with_field("context", '{"a":[1,-2.5,null,true,"\\ud83d\\ude00",{"b":{}}],"c":"e1 9e9"}'),
        with_field("send_at", '"2026-11-23T10:00:00+01:00"'),
        with_field("id", f'"{ID}"'),
        with_field("channel", '"email"'),
        with_field("lane", '"normal"'),
    ],
)
def test_what_has_no_fault_is_read_at_once(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = step_by_step(body)
    monkeypatch.setattr(validation, "decode", None)
    assert at_once(body) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("NaN", "Infinity", "-Infinity", "1e999", "1E400", "-1e-400", "1e5", "1.5E3", "0e0", "1e"),
        *map(str, (MAX_NUMBER, MAX_NUMBER - 1, -MAX_NUMBER, 1 - MAX_NUMBER, 10**30, float(MAX_NUMBER))),
        *("9" * 19, "9" * 20, "9" * 4300, "9" * 5000, "1" * 19 + ".5", "01", "-0", "-0.0", ".5", "1."),
        *('"\\u0000"', '"\\\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\0"', '"\x7f"'),
        *("[" * depth + "]" * depth for depth in (150, 197, 198, 199, 200, 201, 300)),
        *('{"a":' * depth + "1" + "}" * depth for depth in (150, 196, 197, 198, 199, 200, 300)),
        *('{"\\u0000":1}', '{"a":1,"a":2}', '{"a":NaN,"a":2}', '{"":1}', "{", "nul", '"', "'a'"),
    ],
)
def test_every_value_in_a_context(value: str) -> None:
    assert_same(with_field("context", f'{{"x":{value}}}'))
    assert_same(with_field("metadata", f'{{"x":{value}}}'))
    assert_same(with_field("reference", value))


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf{" + GOOD + b"}",
        b" \n{" + GOOD + b"}\n",
        b"{" + GOOD + b"} {}",
        b"{" + GOOD + b",}",
        b"{}",
        b"{,}",
        b"{",
        with_field("context", '{"x":"') + b'\xff"}}',
        b"{" + GOOD + b',"context":{"x":"\xed\xa0\x80"}}',
        b'{"task":"x","args":[],' + GOOD + b"}",
        b'{"batch":[{' + GOOD + b"}]}",
        b"{" + GOOD + b'}, "batch":[]}',
        with_field("channel", '"sms"'),
        with_field("channel", "null"),
        with_field("channel", '"email","channel":null'),
        with_field("channel", '"sms","channel":"email"'),
        with_field("lane", '"urgent"'),
        with_field("to", '"ann@example.com","to":"nowhere"'),
        with_field("id", f'"{ID.upper()}"'),
        with_field("id", '"01890a5d-ac96-774b-bcce-b302099a8057"'),
        with_field("attachments", f'["{ID}"]'),
        with_field("attachments", "[]"),
        with_field("reference", '"' + "x" * MAX_BODY_BYTES + '"'),
    ],
)
@pytest.mark.parametrize("channel", Channel)
def test_every_way_to_write_a_body(body: bytes, channel: Channel) -> None:
    assert_same(body, channel)


_TEXTS = st.sampled_from(["", "a", "ann@example.com", "+15550100123", "NaN", "\0", "é", "\U0001f600", "2e5", ID])
_TIMES = st.sampled_from(["2026-11-22T09:30:00Z", "2026-11-23 10:00:00.5+01:00", "2028-01-01T00:00:00Z", "now"])
_NUMBERS = (
    st.integers() | st.floats() | st.sampled_from([MAX_NUMBER, 1 - MAX_NUMBER, float(MAX_NUMBER), 10**25, 1e16])
)
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.text() | _TEXTS | _TIMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | _TEXTS, inner, max_size=4),
)
_MAPS = st.dictionaries(st.text(max_size=3), st.text(max_size=5) | _JSON, max_size=3)
_KEYS = st.sampled_from([*Message.model_fields, "batch", "defaults", "task", "x"])
_VALUES = st.one_of(
    _JSON, _TEXTS, _TIMES, _MAPS, st.sampled_from([*Channel, *Lane]), st.lists(st.just(ID), max_size=2)
)


def _written(value: Any, *, is_ascii: bool) -> str:
    return json.dumps(value, ensure_ascii=is_ascii)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """One message and what may be wrong with it: fields of any value, some of them twice."""
    is_ascii = draw(st.booleans())
    pairs = draw(st.lists(st.tuples(_KEYS, _VALUES), max_size=4))
    extra = "".join(f',"{key}":{_written(value, is_ascii=is_ascii)}' for key, value in pairs)
    return b"{" + GOOD + extra.encode("utf-8", "surrogatepass") + b"}"


@given(bodies(), st.sampled_from(Channel), st.sampled_from(Lane))
def test_any_message(body: bytes, channel: Channel, lane: Lane) -> None:
    assert_same(body, channel, lane)


@given(bodies(), st.data())
def test_a_message_that_was_damaged(body: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(body)))
    junk = data.draw(st.binary(max_size=3) | st.sampled_from([b"\\u0000", b"\\ud800", b"1e9", b"0" * 20, b'","']))
    assert_same(body[:place] + junk + body[place + data.draw(st.integers(0, 3)) :])


@given(st.binary() | _JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(body: bytes) -> None:
    assert_same(body)
