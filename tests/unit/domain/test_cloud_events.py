"""A CloudEvent is its message: key, faults and trace; whatever else it has is ignored."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from notifier.domain.cloud_events import without_headers
from notifier.domain.errors import InvalidMessage
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import Entry, parse_body
from notifier.intake.checks import check_encoding
from notifier.intake.http_requests import read_request

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
MESSAGE = {"producer": "shop", "to": "+15550100123", "template": "login_code", "context": {"code": "1"}}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def event(**changed: Any) -> dict[str, Any]:
    whole = {"specversion": "1.0", "id": "7", "source": "/logins", "type": "login.asked", "data": MESSAGE}
    return {name: value for name, value in (whole | changed).items() if value != "absent"}


def read(**changed: Any) -> list[Entry]:
    return parse_body(json.dumps(event(**changed)).encode(), Channel.SMS, Lane.URGENT, now=NOW)


@pytest.mark.parametrize(
    ("data", "key"),
    [({}, "/logins 7"), ({"idempotency_key": None}, "/logins 7"), ({"idempotency_key": "login-1"}, "login-1")],
)
def test_source_and_id_are_the_key_of_a_message_without_one(data: dict[str, Any], key: str) -> None:
    (entry,) = read(data=MESSAGE | data, traceparent=TRACE, subject="order-7", ordernumber=7, dataschema=None)
    assert entry.message is not None
    assert (entry.message.key, entry.message.traceparent) == (key, TRACE)


def test_the_entries_of_a_batch_have_keys_of_their_own() -> None:
    entries = read(data={"batch": [MESSAGE | {"idempotency_key": "a"}, MESSAGE]})
    assert [[fault.code for fault in entry.faults] for entry in entries] == [[], ["no_key"]]


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"specversion": "0.3"}, ["cloudevent.specversion"]),
        ({"id": "absent", "source": "a b", "type": ""}, ["cloudevent.id", "cloudevent.source", "cloudevent.type"]),
        ({"specversion": "absent"}, ["cloudevent.specversion"]),
        ({"specversion": 1.0, "id": None}, ["cloudevent.specversion", "cloudevent.id"]),
        ({"data": "absent", "data_base64": "e30="}, ["cloudevent.data", "cloudevent.data_base64"]),
        ({"data_base64": "e30="}, ["cloudevent.data_base64"]),
        ({"time": "yesterday"}, ["cloudevent.time"]),
        ({"time": "2026-02-30T09:30:00Z"}, ["cloudevent.time"]),
        ({"time": "2026-11-22T09:30:00"}, ["cloudevent.time"]),
        ({"subject": "", "dataschema": 5}, ["cloudevent.dataschema", "cloudevent.subject"]),
        ({"orderNumber": "7", "order-number": "7"}, ["cloudevent.orderNumber", "cloudevent.order-number"]),
        ({"order": {"number": 7}, "price": 1.5}, ["cloudevent.order", "cloudevent.price"]),
        ({"datacontenttype": "application/json; charset=utf-8", "time": "2026-11-22T09:30:00.5+01:00"}, []),
        ({"datacontenttype": None, "time": None, "data_base64": None, "extension": None}, []),
        ({"data": [MESSAGE]}, ["cloudevent.data"]),
        ({"datacontenttype": "text/xml"}, ["cloudevent.datacontenttype"]),
        ({"id": "7" * 255}, ["cloudevent.id"]),
        ({"data": MESSAGE | {"to": "nobody", "specversion": "1.0"}}, ["specversion", "to"]),
        ({"data": MESSAGE | {"to": "nobody"}}, ["to"]),
        ({"id": "", "data": MESSAGE | {"to": "nobody"}}, ["cloudevent.id", "to"]),
        ({"id": "", "data": MESSAGE | {"to": "nobody", "colour": 1}}, ["cloudevent.id", "colour", "to"]),
        ({"id": "7\0", "data": MESSAGE | {"locale": "?"}}, ["cloudevent.id", "locale"]),
        ({"source": "/\0"}, ["cloudevent.source"]),
        ({"id": "7\0", "data": MESSAGE | {"idempotency_key": "login-1"}}, []),
        ({"order": {}, "data": MESSAGE | {"to": 5}}, ["cloudevent.order", "to"]),
        ({"id": "", "data": {"batch": [MESSAGE | {"to": "nobody"}]}}, ["cloudevent.id"]),
    ],
)
def test_faults_name_the_attribute_or_the_field_of_the_message(changed: dict[str, Any], fields: list[str]) -> None:
    assert [fault.field for entry in read(**changed) for fault in entry.faults] == fields


def test_it_is_the_same_over_http() -> None:
    data = {name: value for name, value in MESSAGE.items() if name != "producer"} | {"channel": "sms"}
    entry = read_request(json.dumps(event(data=data)).encode(), "shop", now=NOW)
    assert entry.message is not None
    assert (entry.message.producer, entry.message.key) == ("shop", "/logins 7")


def test_over_http_too_a_fault_of_the_event_hides_none_of_its_message() -> None:
    data = {"channel": "sms", "to": "nobody", "template": "login_code"}
    entry = read_request(json.dumps(event(id="", data=data)).encode(), "shop", now=NOW)
    assert [fault.field for fault in entry.faults] == ["cloudevent.id", "to"]
    # By which its template is checked, too.
    assert entry.draft is not None
    assert entry.draft.message.template == "login_code"
    with pytest.raises(InvalidMessage, match=r"cloudevent.id: .*cloudevent.data"):
        read_request(json.dumps(event(id="", data=5)).encode(), "shop", now=NOW)


def test_its_content_type_is_known() -> None:
    assert check_encoding("application/cloudevents+json; charset=utf-8", None) == []
    assert check_encoding("application/cloudevents-batch+json", None) != []


def test_a_message_without_a_key_is_told_that_headers_of_an_event_are_not_read() -> None:
    headers = {"cloudEvents:id": "7", "cloudEvents:source": "/logins"}
    (entry,) = parse_body(json.dumps(MESSAGE | {"to": "nobody"}).encode(), Channel.SMS, Lane.URGENT, now=NOW)
    found = without_headers(entry.faults, headers)
    assert {fault.code for fault in found} == {fault.code for fault in entry.faults} >= {"no_key"}
    assert "structured mode" in " ".join(map(str, found))
    assert without_headers(entry.faults, {"id": "7"}) == entry.faults
