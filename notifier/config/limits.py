"""Tables of notifier.toml that set limits: how much may be sent, and how long it is kept."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Cap(BaseModel):
    """At most `count` in each window of `per_seconds`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: Annotated[int, Field(ge=1)]
    per_seconds: Annotated[int, Field(ge=1, le=86_400)]


class Caps(BaseModel):
    """Caps against pumping and against flooding one person. What is over a cap waits for the next window."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Notifications to one recipient on one channel.
    recipient: Cap | None = None
    #: SMS to numbers that differ in their last three digits only.
    prefix: Cap | None = None


class Quota(BaseModel):
    """What one producer may send a day, by NOTIFIER_TIMEZONE; it is warned at 80 %. What is over it waits for the
    next day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    email: Annotated[int, Field(ge=1)] | None = None
    sms: Annotated[int, Field(ge=1)] | None = None


class SuppressionTable(BaseModel):
    """When hard bounces are too many to be believed: what they would suppress then waits for an operator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: More than this share of the messages that a provider or a sender identity sent in an hour; 1: never.
    max_hard_bounce_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    #: Of fewer messages in an hour nothing is concluded.
    min_messages: Annotated[int, Field(ge=1)] = 100


class Retention(BaseModel):
    """How long notifications of a channel are kept. A day counts from the time in the notification's id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Then nobody can tell any more who got what, only that it was sent, when and how; unset: never.
    redact_after_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    #: Then it is gone; unset: never.
    drop_after_days: Annotated[int, Field(ge=1, le=36_500)] | None = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        redact, drop = self.redact_after_days, self.drop_after_days
        if redact is not None and drop is not None and drop < redact:
            raise ValueError("drop_after_days is less than redact_after_days: what is dropped needs no redaction")
        return self
