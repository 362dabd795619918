"""The body of a callback: a status and its reason, never a recipient or a context."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from notifier.domain.statuses import Channel, Status
from notifier.store.callbacks import ClaimedCallback


class StatusData(BaseModel):
    """What became of one notification."""

    model_config = ConfigDict(frozen=True, title="StatusData")

    id: Annotated[UUID, Field(description="The notification.")]
    producer: Annotated[str, Field(description="Who sent it.")]
    channel: Channel
    status: Annotated[Status, Field(description="What it came to.")]
    #: Not the enum: a newer version may have written it.
    reason: Annotated[
        str | None, Field(description="Why: a word from the list of reasons; null: nothing is wrong.")
    ]
    reference: Annotated[str | None, Field(description="The producer's own.")]
    metadata: Annotated[dict[str, str], Field(description="The producer's own.")]
    is_test: Annotated[bool, Field(description="It was sent with a test key: no provider was called.")]
    attempt: Annotated[int | None, Field(description="Number of calls to providers so far; null: none.")]
    occurred_at: Annotated[datetime, Field(description="When its status changed, by the record's clock.")]
    sequence: Annotated[
        int,
        Field(
            description="Grows with each callback of a notification, with gaps. Ignore a callback that comes "
            "after a higher number."
        ),
    ]


class StatusCallback(BaseModel):
    """The body of a callback."""

    model_config = ConfigDict(frozen=True, title="notifier status callback, version 1")

    type: Literal["notification.status"] = "notification.status"
    timestamp: Annotated[datetime, Field(description="Same as data.occurred_at.")]
    data: StatusData


def encode(claimed: ClaimedCallback) -> bytes:
    """The body's bytes, which are always the same for the same callback."""
    assert claimed.channel is not None, "its notification is in the record"
    occurred_at = claimed.occurred_at.astimezone(UTC)
    data = StatusData(
        id=claimed.notification_id,
        producer=claimed.producer,
        channel=Channel(claimed.channel),
        status=claimed.status,
        reason=claimed.reason,
        reference=claimed.reference,
        metadata=claimed.metadata or {},
        is_test=claimed.is_test,
        attempt=claimed.attempt,
        occurred_at=occurred_at,
        sequence=claimed.sequence,
    )
    return StatusCallback(timestamp=occurred_at, data=data).model_dump_json().encode()


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the body of a callback."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:notifier:callback:1",
        **StatusCallback.model_json_schema(mode="serialization"),
    }
