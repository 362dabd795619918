"""What the client sends of messages that it refuses: whatever is right of it, the service accepts none."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from notifier.client.conversations import ApiRequest
from notifier.client.refused_messages import ask_against, beside, entry_of
from notifier.domain.errors import Fault
from notifier.intake.http_requests import read_batch_request

GOOD: dict[str, Any] = {"to": "ann@example.com", "channel": "email", "template": "hello", "idempotency_key": "1"}
DEEP: list[Any] = []
DEEP.append(DEEP)


def test_the_service_accepts_none_of_them_and_judges_each() -> None:
    request = next(ask_against([entry_of(GOOD), entry_of({**GOOD, "to": "x"})], 0))
    assert isinstance(request, ApiRequest)
    assert request.body is not None
    batch = read_batch_request(request.body, "shop", now=datetime.now(UTC))
    assert [fault.code for fault in batch.faults] == ["unknown_field"]
    assert [[fault.field for fault in entry.faults] for entry in batch.entries] == [[], ["to"]]


@pytest.mark.parametrize(
    "value", [object(), float("nan"), "\ud800", 10**5000, DEEP], ids=["object", "nan", "half", "huge", "deep"]
)
def test_what_has_no_form_in_json_takes_nothing_else_with_it(value: Any) -> None:
    sent = json.loads(entry_of({**GOOD, "reference": value, "context": {"bad": [value], "good": 1}}))
    assert {name: sent[name] for name in GOOD} == GOOD
    assert sent["context"] in ({"bad": [None], "good": 1}, {"good": 1})
    assert not sent.get("reference")


def test_of_one_field_the_clients_fault_alone_is_told() -> None:
    own, same, within, around, other = (
        Fault(field, "x", "x", "x") for field in ("a.b", "a.b", "a.b.c", "a", "a.bc")
    )
    assert list(beside([own], [same, within, around, other])) == [own, other]
