"""What of a refused message can still be judged: one answer has everything that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from notifier.domain.errors import Fault
from notifier.domain.message import Message
from notifier.domain.recipient_identity import recipient_faults
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import Entry, parse_body
from tests.unit.domain.test_faultless_bodies import bodies

GOOD = {"producer": "shop", "idempotency_key": "k", "to": "ann@example.com", "template": "hello", "sender": "s"}
#: As the service's checks would find them in any draft.
FURTHER = [Fault(field, "found", "is wrong", "Mend it") for field in ("to", "template", "context.name", "sender")]


def refused(**fields: Any) -> Entry:
    body = {name: value for name, value in {**GOOD, **fields}.items() if value is not ...}
    [entry] = parse_body(json.dumps(body).encode(), Channel.EMAIL, Lane.NORMAL)
    assert entry.message is None
    return entry


def told(entry: Entry) -> list[str]:
    return [fault.field for fault in entry.with_further(FURTHER)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # The contract's faults come first; what is said of a field that has one is not said twice.
        ({"to": "nobody"}, ["to", "template", "context.name", "sender"]),
        ({"locale": "?", "colour": "red"}, ["locale", "colour", "to", "template", "context.name", "sender"]),
        ({"idempotency_key": ...}, ["", "to", "template", "context.name", "sender"]),
        ({"context": {"name": "\0"}}, ["context.name", "to", "template", "sender"]),
        ({"colour": "red", "to": "nobody"}, ["colour", "to", "template", "context.name", "sender"]),
        # Without its template or its context nothing can be said of variables.
        ({"template": "a b"}, ["template", "to", "sender"]),
        ({"context": "x"}, ["context", "to", "template", "sender"]),
        ({"producer": ...}, ["producer", "to", "template", "context.name", "sender"]),
    ],
)
def test_what_is_right_of_a_refused_message_is_judged_too(fields: dict[str, Any], expected: list[str]) -> None:
    entry = refused(**fields)
    assert sorted(told(entry)) == sorted(expected)
    assert told(entry)[: len(entry.faults)] == [fault.field for fault in entry.faults]


def test_a_message_for_another_channel_has_no_draft() -> None:
    entry = refused(channel="sms")
    assert entry.draft is None
    assert entry.with_further(()) == entry.faults


@given(bodies())
def test_a_draft_holds_nothing_that_was_refused(body: bytes) -> None:
    for entry in parse_body(body, Channel.EMAIL, Lane.NORMAL):
        assert entry.message is None or entry.draft is None
        if entry.draft is not None:
            draft = entry.draft.message
            assert not recipient_faults(draft.to, Channel.EMAIL)
            assert Message.model_validate(draft.model_dump(exclude_none=True)) == draft
            assert (draft.channel, draft.lane) == (Channel.EMAIL, Lane.NORMAL)


def test_of_a_thousand_faults_few_are_told() -> None:
    entry = refused(context={str(number): "\0" for number in range(1000)})
    assert entry.with_further(FURTHER)[-1].code == "more_faults"
