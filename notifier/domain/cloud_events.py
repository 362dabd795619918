"""CloudEvents 1.0 in their JSON form (structured mode): an event whose `data` is a message or a batch.

A body is an event if it has `specversion`, or `source` and `type`. No message has these, so messages pay nothing
for the check. Faults of the event's attributes begin with `cloudevent.`; faults of the message are named as usual.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from notifier.domain.errors import Fault
from notifier.domain.times import Time

CONTENT_TYPE = "application/cloudevents+json"
#: Maximum length of an idempotency key in the contract.
_MAX_KEY = 255
#: Name of an attribute, of the specification or of an extension.
_NAME = re.compile(r"[a-z0-9]+", re.ASCII)
#: Prefixes of attributes in headers, in the bindings of CloudEvents to AMQP and HTTP (binary mode).
_IN_HEADERS = ("cloudevents:", "cloudevents_", "ce-", "ce_")


class CloudEvent(BaseModel):
    """The attributes of the specification, and `traceparent`. Others are allowed and ignored."""

    model_config = ConfigDict(
        frozen=True,
        title="notifier message as a CloudEvent",
        json_schema_extra={"propertyNames": {"pattern": "^[a-z0-9]+$"}},
    )

    specversion: Annotated[Literal["1.0"], Field(description="1.0")]
    id: Annotated[
        str,
        Field(
            min_length=1,
            description="Together with `source`, the idempotency key of a message that has neither key nor id.",
        ),
    ]
    source: Annotated[str, Field(pattern=r"^\S+$", description="URI reference of the event's source.")]
    type: Annotated[str, Field(min_length=1, description="The producer's own, such as com.example.order.shipped.")]
    datacontenttype: Annotated[
        str | None,
        Field(pattern=r"^[A-Za-z]+/([^;\s]+\+)?[Jj][Ss][Oo][Nn]\s*(;.*)?$", description="JSON, if it is given."),
    ] = None
    dataschema: Annotated[str | None, Field(pattern=r"^\S+$", description="Not read.")] = None
    subject: Annotated[str | None, Field(min_length=1, description="Not read.")] = None
    time: Annotated[Time | None, Field(description="RFC 3339 with an offset. Not read.")] = None
    traceparent: Annotated[JsonValue, Field(description="For a message without its own.")] = None
    data: Annotated[dict[str, JsonValue], Field(description="The message, or a batch.")]

    @property
    def is_key(self) -> bool:
        """Whether its source and id become the idempotency key of its message."""
        return "batch" not in self.data and not _has_key(self.data)

    def message(self) -> dict[str, Any]:
        """`data`, with missing fields filled in from the event."""
        if "batch" in self.data:
            return self.data
        known: dict[str, Any] = {} if self.traceparent is None else {"traceparent": self.traceparent}
        if self.is_key:
            known["idempotency_key"] = self._key
        return self.data | {name: value for name, value in known.items() if self.data.get(name) is None}

    def key_faults(self) -> Iterator[Fault]:
        """Why source and id cannot be the idempotency key of its message."""
        if not self.is_key:
            return
        for name, part in (("id", self.id), ("source", self.source)):
            if "\0" in part:
                yield Fault(f"cloudevent.{name}", "nul_character", "contains a NUL character", "Remove it")
        if len(self._key) > _MAX_KEY:
            problem = f"is, with the source and a space, longer than {_MAX_KEY} characters"
            fix = "Shorten it, or give the message an idempotency_key"
            yield Fault("cloudevent.id", "too_long", problem, fix)

    @property
    def _key(self) -> str:
        # Only the two together are unique. No URI has a space, so no two pairs make the same key.
        return f"{self.source} {self.id}"


def _has_key(message: Mapping[str, Any]) -> bool:
    return message.get("idempotency_key") is not None or message.get("id") is not None


def message_to_judge(data: object) -> dict[str, Any] | None:
    """The message of a refused event, so that its own faults are found too. It gets a key, as an accepted event
    would give it. None: it is a batch, or not a message at all."""
    if not isinstance(data, dict) or "batch" in data:
        return None
    return data if _has_key(data) else data | {"idempotency_key": "event"}


def is_cloud_event(value: Mapping[str, Any]) -> bool:
    return "specversion" in value or ("source" in value and "type" in value)


def extension_faults(value: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of the members of an event that its model does not name."""
    for name, item in value.items():
        if name in CloudEvent.model_fields:
            continue
        field = f"cloudevent.{name}"
        if name == "data_base64":
            if item is not None:
                problem = "is given in addition to data" if value.get("data") is not None else "is not read"
                yield Fault(field, "unknown_field", problem, "Send the message as JSON in data, and nothing else")
        elif not _NAME.fullmatch(name):
            fix = "Rename it as the CloudEvents specification requires"
            yield Fault(field, "bad_format", "is not a name of lower-case letters and digits", fix)
        elif isinstance(item, dict | list | float):
            fix = "Send text, a whole number, true or false; or put it into the message"
            yield Fault(field, "wrong_type", "is not a valid attribute value", fix)


def without_headers(faults: Iterable[Fault], headers: Mapping[str, Any]) -> tuple[Fault, ...]:
    """The faults of a body that came with these headers. If they hold an event in binary mode, a missing key is
    explained by that: there is no finished binding of CloudEvents to AMQP 0-9-1, so binary mode is not read."""
    if not any(name.lower().startswith(_IN_HEADERS) for name in headers):
        return tuple(faults)
    problem = "is not given, and the CloudEvent in its headers (binary mode) is not read"
    fix = f"Give the message one, or publish the event in structured mode, as {CONTENT_TYPE}"
    return tuple(
        replace(fault, field="idempotency_key", problem=problem, fix=fix) if fault.code == "no_key" else fault
        for fault in faults
    )
