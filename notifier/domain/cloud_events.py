"""CloudEvents 1.0 in their JSON form (structured mode): an event whose `data` is a message or a batch.

A body is an event if it has `specversion`, which no message has; so messages pay nothing for it. Faults of its
attributes begin with `cloudevent.`, those of the message are named as ever.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from notifier.domain.errors import Fault

CONTENT_TYPE = "application/cloudevents+json"
#: As the contract has it for an idempotency key.
_MAX_KEY = 255


class CloudEvent(BaseModel):
    """The attributes that mean something here; others, as `time` and `subject`, are allowed and ignored."""

    model_config = ConfigDict(frozen=True, title="notifier message as a CloudEvent")

    specversion: Annotated[str, Field(pattern=r"^1\.0$", description="1.0")]
    id: Annotated[
        str,
        Field(
            min_length=1, description="With `source` the idempotency key of a message that has neither key nor id."
        ),
    ]
    source: Annotated[str, Field(pattern=r"^\S+$", description="URI reference of what the event comes from.")]
    type: Annotated[str, Field(min_length=1, description="The producer's own, as com.example.order.shipped.")]
    datacontenttype: Annotated[
        str | None,
        Field(pattern=r"^[A-Za-z]+/([^;\s]+\+)?[Jj][Ss][Oo][Nn]\s*(;.*)?$", description="JSON, if it is given."),
    ] = None
    traceparent: Annotated[JsonValue, Field(description="For a message that has none itself.")] = None
    data: Annotated[dict[str, JsonValue], Field(description="The message, or a batch.")]

    def message(self) -> dict[str, Any] | Fault:
        """`data`, with what the event says in its place; or why the event cannot be its key."""
        known: dict[str, Any] = {} if self.traceparent is None else {"traceparent": self.traceparent}
        if "batch" in self.data:
            return self.data
        if self.data.get("idempotency_key") is None and self.data.get("id") is None:
            # Only the two together are unique. A space is in no URI, so no two pairs make the same key.
            known["idempotency_key"] = f"{self.source} {self.id}"
            if len(known["idempotency_key"]) > _MAX_KEY:
                problem = f"is, with the source and a space, longer than {_MAX_KEY} characters"
                return Fault(
                    "cloudevent.id", "too_long", problem, "Shorten it, or give the message an idempotency_key"
                )
        return self.data | {name: value for name, value in known.items() if self.data.get(name) is None}


def is_cloud_event(value: dict[str, Any]) -> bool:
    return "specversion" in value
