"""The wire contract, version 1: what a producer publishes, field by field. `validation` reads its bytes."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

from notifier.domain.cloud_events import CloudEvent
from notifier.domain.statuses import Channel, Lane
from notifier.domain.times import Time, rule_error, write_time
from notifier.domain.trace_context import read_traceparent

#: Of a mail. RFC 5322 section 2.1.1: no header line may be longer, and some readers do not unfold. Characters.
MAX_SUBJECT_LENGTH = 998
#: Maximum length of the text and of the HTML of a mail, each. Characters.
MAX_PART_LENGTH = 512 * 1024
#: A larger body is refused before it is decoded. Bytes.
MAX_BODY_BYTES = 1024 * 1024
#: Maximum number of entries of one batch.
MAX_BATCH_ENTRIES = 1000
#: Maximum total size of the fields that the entries of a batch share, counted once for each entry. Bytes.
MAX_SHARED_BYTES = 16 * 1024 * 1024
#: Maximum number of files of one mail.
MAX_ATTACHMENTS = 10
#: Maximum total size of the files of one mail. Bytes.
MAX_MAIL_ATTACHMENTS = 10 * 1024 * 1024
#: `send_at` may lie this far in the future …
MAX_SCHEDULE_AHEAD = timedelta(days=366)
#: … and, like the time in the message's own id, this far in the past: a queue may have waited for a month.
MAX_AGE = timedelta(days=31)
#: Numbers of a context must be smaller, because larger ones could not be written out. Send those as strings.
MAX_NUMBER = 2**64
#: How far a producer's clock may run ahead of ours.
MAX_CLOCK_SKEW = timedelta(days=1)


def new_id(now: float | None = None) -> UUID:
    """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random bits. Sorts by time of creation.

    `now` is the time to put into it, in Unix seconds (default: this machine's clock).
    """
    milliseconds = int((time.time() if now is None else now) * 1000)
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def time_of_id(value: UUID) -> datetime:
    """When a UUIDv7 was made, in UTC, to the millisecond. For a time after the year 9999, the end of that year."""
    try:
        return datetime.fromtimestamp((value.int >> 80) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.max.replace(tzinfo=UTC)


def _parse_id(value: object) -> UUID:
    try:
        found = value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        found = None
    if found is None or found.version != 7:
        raise rule_error("bad_id", "not a UUIDv7", "Leave it out and give an idempotency_key, or make a UUIDv7")
    return found


def _parse_attachment(value: object) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(str(value))
    except ValueError:
        fix = "Give the id that POST /v1/attachments answered"
        raise rule_error("bad_attachment_id", "not the id of an attachment", fix) from None


MessageId = Annotated[UUID, BeforeValidator(_parse_id), WithJsonSchema({"type": "string", "format": "uuid"})]
AttachmentId = Annotated[
    UUID, BeforeValidator(_parse_attachment), WithJsonSchema({"type": "string", "format": "uuid"})
]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Locale = Annotated[str, Field(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
Text255 = Annotated[str, Field(min_length=1, max_length=255)]
# No value is a fault: W3C says to ignore an invalid traceparent, and a broken tracer must not lose a message.
Traceparent = Annotated[str | None, BeforeValidator(read_traceparent), WithJsonSchema({})]


class Message(BaseModel):
    """What a producer publishes: one template to one recipient. Immutable; contract version 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="notifier message, version 1")

    idempotency_key: Annotated[
        Text255 | None,
        Field(description="The producer's key: a second message with the same key is the same notification."),
    ] = None
    id: Annotated[
        MessageId | None,
        Field(description="UUIDv7 made by the producer; it becomes the notification's id."),
    ] = None
    producer: Annotated[Name, Field(description="Name of the sending service.")]
    channel: Annotated[
        Channel | None, Field(description="Known from the queue; if given, it must agree with it.")
    ] = None
    lane: Annotated[Lane | None, Field(description="Known from the queue; if given, it must agree.")] = None
    to: Annotated[
        str,
        Field(
            min_length=3,
            max_length=320,
            description="One recipient: an e-mail address (display name allowed) or an E.164 number.",
        ),
    ]
    template: Annotated[Name, Field(description="Name of the template.")]
    context: Annotated[dict[str, JsonValue], Field(description="Variables of the template.")] = Field(
        default_factory=dict
    )
    locale: Annotated[
        Locale | None, Field(description="BCP 47. Falls back from fr-CA to fr, then to the template's default.")
    ] = None
    sender: Annotated[Name | None, Field(description="Name of a configured sender identity.")] = None
    reply_to: Annotated[
        Name | None, Field(description="Name of the configured sender identity that gets the replies.")
    ] = None
    reference: Annotated[Text255 | None, Field(description="The producer's own reference; not unique.")] = None
    metadata: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=100)], Annotated[str, Field(max_length=500)]],
        Field(max_length=50, description="Flat map of strings, for searching."),
    ] = Field(default_factory=dict)
    send_at: Annotated[
        Time | None, Field(description="Do not send before this time. RFC 3339 with an offset.")
    ] = None
    expires_at: Annotated[
        Time | None, Field(description="Do not send after this time. RFC 3339 with an offset.")
    ] = None
    callback_url: Annotated[
        str | None,
        Field(max_length=2000, pattern=r"^https?://[^\s]+$", description="Where status callbacks go."),
    ] = None
    attachments: Annotated[
        list[AttachmentId] | None,
        Field(
            max_length=MAX_ATTACHMENTS,
            description="Ids of uploaded files to attach to the mail, in this order; e-mail only.",
        ),
    ] = None

    traceparent: Annotated[
        Traceparent,
        Field(description="W3C Trace Context of the producer's span. An invalid value is ignored."),
    ] = None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.idempotency_key is None and self.id is None:
            raise rule_error("no_key", "neither idempotency_key nor id is given", "Give one of the two")
        if self.send_at and self.expires_at and self.expires_at <= self.send_at:
            raise rule_error("expires_before_send", "expires_at is not after send_at", "Put expires_at later")
        return self

    @property
    def key(self) -> str:
        """Unique for each producer: the idempotency key, otherwise the id."""
        return self.idempotency_key if self.idempotency_key is not None else str(self.id)

    def content(self) -> dict[str, Any]:
        """Its fields as in JSON, without unset ones. Context and metadata are the message's own, not copies.

        `traceparent` is left out, because the same message may be sent again in another span.
        """
        content = {name: value for name, value in self.__dict__.items() if value is not None}
        content.pop("traceparent", None)
        if self.id is not None:
            content["id"] = str(self.id)
        if self.send_at is not None:
            content["send_at"] = write_time(self.send_at)
        if self.expires_at is not None:
            content["expires_at"] = write_time(self.expires_at)
        if self.attachments is not None:
            content["attachments"] = [str(value) for value in self.attachments]
        return content

    def within(self, traceparent: str | None) -> Message:
        """The same message with this `traceparent`, valid or None, unless the message has its own."""
        if traceparent is None or self.traceparent is not None:
            return self
        return self.model_copy(update={"traceparent": traceparent})

    def encode(self) -> bytes:
        """The JSON for the broker: fields in the order of the class, without unset ones."""
        return self.model_dump_json(exclude_none=True, exclude_defaults=True).encode()


class Envelope(BaseModel):
    """Many messages at once: `defaults` and the common fields are merged into every entry of `batch`."""

    model_config = ConfigDict(extra="forbid", title="notifier batch, version 1")

    producer: Annotated[Name | None, Field(description="For every entry without its own.")] = None
    template: Annotated[Name | None, Field(description="For every entry without its own.")] = None
    defaults: Annotated[
        dict[str, JsonValue],
        Field(description="Fields for every entry; context and metadata are merged key by key."),
    ] = Field(default_factory=dict)
    batch: Annotated[list[JsonValue], Field(min_length=1, max_length=MAX_BATCH_ENTRIES)]


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of what may be published: one message, a batch, or either as a CloudEvent."""
    message, batch, event = (kind.model_json_schema() for kind in (Message, Envelope, CloudEvent))
    definitions = {**message.pop("$defs", {}), **batch.pop("$defs", {}), **event.pop("$defs", {})}
    # A copy, not a reference: code generators read neither nested nor combined schemas well.
    of_event = {**message, "title": "notifier message in a CloudEvent, version 1"}
    message["anyOf"] = [
        {"required": [name], "properties": {name: {"type": "string"}}} for name in ("idempotency_key", "id")
    ]
    event["properties"]["data"] = {"oneOf": [{"$ref": "#/$defs/MessageOfEvent"}, {"$ref": "#/$defs/Batch"}]}
    definitions |= {"Message": message, "Batch": batch, "CloudEvent": event, "MessageOfEvent": of_event}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:notifier:message:1",
        "title": "notifier message, version 1",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in ("Message", "Batch", "CloudEvent")],
        "$defs": definitions,
    }
