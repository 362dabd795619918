"""The wire contract: what is taken, what is refused, and with which words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.errors import MAX_FAULTS, MAX_FIELD, InvalidMessage
from notifier.domain.message import MAX_BODY_BYTES, Message, json_schema, new_id, time_of_id
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import Entry, check, parse_body
from notifier.security.body_hash import body_hash

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "idempotency_key": "order-1001-shipped",
    "producer": "shop",
    "to": "ann@example.com",
    "template": "order_shipped",
}


def parse(value: Any, channel: Channel = Channel.EMAIL, lane: Lane = Lane.NORMAL) -> list[Entry]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse_body(body, channel, lane, now=NOW)


def codes(value: Any, channel: Channel = Channel.EMAIL) -> dict[str, str]:
    (entry,) = parse(value, channel)
    assert entry.message is None
    return {fault.field: fault.code for fault in entry.faults}


def test_a_minimal_message_takes_channel_and_lane_from_its_queue() -> None:
    (entry,) = parse(GOOD, lane=Lane.URGENT)
    assert entry.message is not None
    assert (entry.message.channel, entry.message.lane) == (Channel.EMAIL, Lane.URGENT)
    assert entry.faults == ()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"hello", "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b'{"to": "\\ud800"}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"a":' * 5_000, "not_json"),
        (b"\xff\xfe{}", "bad_utf8"),
        (b"7", "not_an_object"),
        (b"1.5", "not_an_object"),
        (b"true", "not_an_object"),
        (b"null", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"[[], {}, {}]", "not_an_object"),
        (b'{"task": "t", "args": []}', "celery_message"),
        (b" " * (MAX_BODY_BYTES + 1), "too_large"),
    ],
)
def test_a_body_that_is_no_message_is_refused_as_a_whole(body: bytes, code: str) -> None:
    assert codes(body) == {"": code}


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"to": 5}, "to", "wrong_type"),
        ({"to": "annexample.com"}, "to", "not_an_address"),
        ({"to": "ann@"}, "to", "not_an_address"),
        ({"to": "ann@example.com\r\nBcc: x@example.com"}, "to", "bad_recipient"),
        ({"template": None}, "template", "wrong_type"),
        ({"template": "../../etc/passwd"}, "template", "bad_format"),
        ({"context": []}, "context", "wrong_type"),
        ({"context": {"a": [{"b": "\0"}]}}, "context.a.0.b", "nul_character"),
        ({"context": {"a\0": 1}}, "context", "nul_character"),
        ({"context": {"a": 1e999}}, "context.a", "bad_number"),
        ({"context": {"a": [2**64]}}, "context.a.0", "bad_number"),
        ({"context": {"a": -(10**300)}}, "context.a", "bad_number"),
        ({"metadata": {"a": 1}}, "metadata.a", "wrong_type"),
        ({"metadata": {str(n): "" for n in range(51)}}, "metadata", "too_long"),
        ({"reference": "x" * 256}, "reference", "too_long"),
        ({"locale": "not a locale"}, "locale", "bad_format"),
        ({"colour": "red"}, "colour", "unknown_field"),
        ({"channel": "sms"}, "channel", "queue_mismatch"),
        ({"channel": "pigeon"}, "channel", "queue_mismatch"),
        ({"lane": "bulk"}, "lane", "queue_mismatch"),
        ({"lane": 1}, "lane", "bad_choice"),
        ({"id": "not-a-uuid"}, "id", "bad_id"),
        ({"id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}, "id", "bad_id"),
        ({"id": "00000000-0000-7000-8000-000000000000"}, "id", "bad_id_time"),
        # The years 10889 and 9999.
        ({"id": "ffffffff-ffff-7fff-bfff-ffffffffffff"}, "id", "bad_id_time"),
        ({"id": "e677d21f-dbff-7fff-bfff-ffffffffffff"}, "id", "bad_id_time"),
        ({"id": str(new_id(NOW.timestamp() + 25 * 3600))}, "id", "bad_id_time"),
        ({"id": str(new_id(NOW.timestamp() - 31.1 * 86400))}, "id", "bad_id_time"),
        ({"send_at": "tomorrow"}, "send_at", "bad_time"),
        ({"send_at": 1_700_000_000}, "send_at", "bad_time"),
        ({"send_at": "2026-11-22T09:30:00"}, "send_at", "bad_time"),
        ({"send_at": "2026-02-30T09:30:00Z"}, "send_at", "bad_time"),
        ({"send_at": "9999-12-31T23:59:59-12:00"}, "send_at", "bad_time"),
        ({"send_at": "1970-01-01T00:00:00Z"}, "send_at", "too_long_ago"),
        ({"send_at": "2126-11-22T09:30:00Z"}, "send_at", "too_far_ahead"),
        (
            {"send_at": "2026-11-23T00:00:00Z", "expires_at": "2026-11-22T23:00:00Z"},
            "",
            "expires_before_send",
        ),
        ({"callback_url": "ftp://example.com"}, "callback_url", "bad_format"),
        ({"idempotency_key": ""}, "idempotency_key", "too_short"),
        ({"idempotency_key": None}, "", "no_key"),
    ],
)
def test_a_wrong_field_is_named_with_its_code(change: dict[str, Any], field: str, code: str) -> None:
    body = json.dumps({**GOOD, **change}).replace("Infinity", "1e999")
    assert codes(body.encode()).get(field) == code


def test_texts_are_for_people() -> None:
    event = {"specversion": "2", "id": "", "source": "/orders", "type": "order.shipped", "data": GOOD}
    told = {fault.field: fault for fault in parse(event)[0].faults}
    assert (told["cloudevent.id"].code, told["cloudevent.id"].problem) == ("too_short", "is empty")
    version = told["cloudevent.specversion"]
    assert (version.code, version.problem) == ("bad_format", "is not '1.0'")


@pytest.mark.parametrize("number", ["15550100123", "+0555010012", "+1555", "+1 555 0100", "ann@example.com"])
def test_an_sms_goes_to_an_e164_number_only(number: str) -> None:
    assert codes({**GOOD, "to": number}, Channel.SMS) == {"to": "not_e164"}


def test_every_fault_of_a_message_is_listed_at_once() -> None:
    found = codes({"producer": "a b", "to": 5, "colour": "red"})
    assert found == {
        "producer": "bad_format",
        "to": "wrong_type",
        "template": "missing",
        "colour": "unknown_field",
        "": "no_key",
    }


def test_a_fault_names_field_problem_and_fix_but_never_the_value() -> None:
    (entry,) = parse({**GOOD, "to": "+15550100123 secret"}, Channel.SMS)
    assert str(entry.faults[0]) == "to: not an E.164 number. Write it as +15550100123, without spaces."
    assert "secret" not in str(entry.faults[0])


def test_the_producer_is_known_even_if_the_message_is_refused() -> None:
    (entry,) = parse({**GOOD, "to": 5})
    assert entry.producer == "shop"


def test_entries_of_a_batch_stand_and_fall_alone() -> None:
    entries = parse(
        {
            "producer": "shop",
            "template": "weekly_digest",
            "defaults": {"locale": "fr", "context": {"name": "Ann", "items": 3}},
            "batch": [
                {"to": "a@example.com", "idempotency_key": "1", "context": {"name": "Bob"}},
                {"to": "nowhere", "idempotency_key": "2"},
                "text",
            ],
        }
    )
    good, bad, ugly = entries
    assert good.message is not None
    assert good.message.context == {"name": "Bob", "items": 3}
    assert good.message.locale == "fr"
    assert [bad.faults[0].code, ugly.faults[0].code] == ["not_an_address", "not_an_object"]
    assert bad.raw is not None
    assert json.loads(bad.raw) == {
        "producer": "shop",
        "template": "weekly_digest",
        "locale": "fr",
        "context": {"name": "Ann", "items": 3},
        "to": "nowhere",
        "idempotency_key": "2",
    }


def test_a_batch_over_a_thousand_entries_is_refused() -> None:
    assert codes({"producer": "shop", "batch": [GOOD] * 1001}) == {"batch": "too_long"}


@pytest.mark.parametrize("context", [{"k" * 50_000: [1e30] * 20_000}, {f"k{n}": "\0" for n in range(20_000)}])
def test_a_message_that_is_wrong_everywhere_is_told_so_in_few_words(context: dict[str, Any]) -> None:
    [entry] = parse({**GOOD, "context": context})
    assert len(entry.faults) == MAX_FAULTS + 1
    assert max(len(fault.field) for fault in entry.faults) <= MAX_FIELD
    assert entry.faults[-1].code == "more_faults"


def test_unknown_fields_are_told_in_few_words() -> None:
    [entry] = parse({**GOOD, **{f"unknown{n}": 1 for n in range(5000)}})
    assert [len(entry.faults), entry.faults[-1].code] == [MAX_FAULTS + 1, "more_faults"]


def test_what_is_wrong_with_the_defaults_of_a_batch_is_told_once() -> None:
    shared = {f"unknown{n}": 1 for n in range(5000)}
    [entry] = parse({"producer": "shop", "defaults": shared, "batch": [{}] * 30})
    assert entry.faults[0].field == "defaults.unknown0"
    assert (len(entry.faults), entry.producer) == (MAX_FAULTS + 1, "shop")


def test_defaults_that_would_make_a_batch_a_gigabyte_are_refused() -> None:
    large = {"context": {"name": "x" * 1_000_000}}
    batch = [{"idempotency_key": "1"}] * 1000
    [entry] = parse({"producer": "shop", "defaults": large, "batch": batch})
    assert [(fault.field, fault.code) for fault in entry.faults] == [("defaults", "too_large")]
    unknown = {f"unknown{n}": 1 for n in range(50)}
    [entry] = parse({"producer": "shop", "defaults": {**unknown, **large}, "batch": batch, **unknown})
    assert (entry.faults[0].code, entry.parts, entry.producer) == ("too_large", (), "shop")
    fine = {"to": "ann@example.com", "template": "hello", "context": {"name": "x" * 10_000}}
    entries = parse(
        {"producer": "shop", "defaults": fine, "batch": [{"idempotency_key": str(n)} for n in range(9)]}
    )
    assert [entry.faults for entry in entries] == [()] * 9


def test_the_same_content_has_the_same_hash_whatever_its_spelling() -> None:
    (one,) = parse({**GOOD, "send_at": "2026-11-22T10:00:00+01:00"})
    (two,) = parse(
        b'{"template":"order_shipped","to":"ann@example.com","producer":"shop",'
        b'"send_at":"2026-11-22T09:00:00.000Z","context":{},"idempotency_key":"order-1001-shipped"}'
    )
    assert one.message is not None
    assert two.message is not None
    assert body_hash(one.message) == body_hash(two.message)


def test_a_new_id_under_the_same_key_is_the_same_content() -> None:
    first = check(Message(**GOOD, id=new_id()), Channel.EMAIL, Lane.NORMAL)
    second = check(Message(**GOOD, id=new_id()), Channel.EMAIL, Lane.NORMAL)
    other = check(Message(**{**GOOD, "to": "bob@example.com"}), Channel.EMAIL, Lane.NORMAL)
    assert body_hash(first) == body_hash(second) != body_hash(other)


def test_half_a_character_is_refused_before_it_is_published() -> None:
    for context in ({"a": ["x\ud800"]}, {"\udfff": 1}):
        with pytest.raises(InvalidMessage, match="holds half a character"):
            check(Message(**GOOD, context=context), Channel.EMAIL, Lane.NORMAL)


def test_ids_sort_by_time_and_tell_it() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    ids = [new_id() for _ in range(50)]
    assert all(value.version == 7 and value.variant == "specified in RFC 4122" for value in ids)
    assert before <= time_of_id(ids[0]) <= time_of_id(ids[-1]) <= datetime.now(UTC)


def test_check_raises_with_every_fault() -> None:
    with pytest.raises(InvalidMessage, match="not an e-mail address") as caught:
        check(Message(**{**GOOD, "to": "nowhere"}), Channel.EMAIL, Lane.NORMAL)
    assert [fault.code for fault in caught.value.faults] == ["not_an_address"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
FIELDS = st.sampled_from([*Message.model_fields, "batch", "defaults", "x"])


@given(st.binary() | JSON.map(lambda v: json.dumps(v).encode()))
def test_no_bytes_at_all_make_it_raise(body: bytes) -> None:
    assert all((entry.message is None) == bool(entry.faults) for entry in parse(body))


@given(st.dictionaries(FIELDS, JSON, max_size=8))
def test_no_json_object_makes_it_raise(value: dict[str, Any]) -> None:
    for channel in Channel:
        for entry in parse({**GOOD, **value}, channel):
            assert (entry.message is None) == bool(entry.faults)
            if entry.message is not None:
                encoded = entry.message.encode()
                assert parse_body(encoded, channel, Lane.NORMAL, now=NOW)[0].message == entry.message


def test_the_schema_takes_what_the_parser_takes() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    assert validator.is_valid(GOOD)
    assert validator.is_valid({"producer": "shop", "batch": [GOOD]})
    event = {"specversion": "1.0", "id": "7", "source": "/orders", "type": "order.shipped", "data": GOOD}
    assert validator.is_valid(event)
    unkeyed = {**GOOD, "idempotency_key": None}
    # The event's id and source are the key of its message.
    assert validator.is_valid({**event, "data": unkeyed})
    assert validator.is_valid({**unkeyed, "id": str(new_id())})
    wrong: object
    for wrong in (
        unkeyed,
        {"producer": "shop", "to": "+15550100123", "template": "code"},
        {**GOOD, "x": 1},
        {**GOOD, "to": 5},
        {"batch": []},
        7,
        [],
        {**event, "data": {}},
    ):
        assert not validator.is_valid(wrong)
