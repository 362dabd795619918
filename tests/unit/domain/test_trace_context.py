"""What of a `traceparent` is believed, and that a wrong one is no fault of its message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from notifier.config.logs import FIELDS
from notifier.domain.message import new_id
from notifier.domain.statuses import Channel, Lane
from notifier.domain.trace_context import is_sampled, log_ids, parent_id_of, read_traceparent, trace_id_of
from notifier.domain.validation import parse_body

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (GOOD, GOOD),
        (GOOD.encode(), GOOD),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        # Of a later version we know what version 00 has.
        (f"cc-{TRACE}-{SPAN}-01", GOOD),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-next", GOOD),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"cc-{TRACE}-{SPAN}-01.more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (GOOD.upper(), None),
        (GOOD + "\n", None),
        (f" {GOOD}", None),
        (GOOD[:-1], None),
        (f"00-{TRACE}-{SPAN}-0\u0661", None),
        (b"\xff" * 55, None),
        ("", None),
        (None, None),
        (42, None),
        ([GOOD], None),
        ({}, None),
        (True, None),
    ],
)
def test_what_w3c_calls_valid_is_read(given: object, found: str | None) -> None:
    assert read_traceparent(given) == found


def test_its_parts() -> None:
    assert (trace_id_of(GOOD), parent_id_of(GOOD), is_sampled(GOOD)) == (TRACE, SPAN, True)
    assert not is_sampled(f"00-{TRACE}-{SPAN}-02")
    id_ = new_id()
    assert log_ids(id_, GOOD) == {"notification_id": str(id_), "trace_id": TRACE}
    assert log_ids(id_, None) == {"notification_id": str(id_)}
    assert log_ids(id_, GOOD).keys() <= FIELDS


@pytest.mark.parametrize("value", [GOOD, GOOD[:-1], "", None, 42, ["a"], {"a": 1e400}, "\0"])
@pytest.mark.parametrize("in_batch", [False, True])
def test_a_message_is_accepted_whatever_its_traceparent_is(value: Any, in_batch: bool) -> None:
    message = {
        "idempotency_key": "1",
        "producer": "shop",
        "to": "ann@example.com",
        "template": "hello",
        "traceparent": value,
    }
    body = json.dumps({"batch": [message]} if in_batch else message).replace("Infinity", "1")
    (entry,) = parse_body(body.encode(), Channel.EMAIL, Lane.NORMAL)
    assert entry.message is not None, entry.faults
    assert entry.message.traceparent == (GOOD if value == GOOD else None)


def test_a_message_keeps_its_own_context_and_takes_another_if_it_has_none() -> None:
    other = f"00-{TRACE}-{'1' * 16}-01"
    body = b'{"idempotency_key":"1","producer":"shop","to":"ann@example.com","template":"hello"%s}'
    found = [
        parse_body(body % more, Channel.EMAIL, Lane.NORMAL)[0].within(other).message
        for more in (b"", b',"traceparent":"nonsense"', b',"traceparent":"%s"' % GOOD.encode())
    ]
    assert [message and message.traceparent for message in found] == [other, other, GOOD]
