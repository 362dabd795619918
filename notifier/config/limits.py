"""The tables of notifier.toml that set limits: how much may be sent, and how long it is kept."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Cap(BaseModel):
    """At most `count` in each window of `per_seconds`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: Annotated[int, Field(ge=1)]
    per_seconds: Annotated[int, Field(ge=1, le=86_400)]


class Caps(BaseModel):
    """Caps against SMS pumping, and against flooding one person. Notifications over a cap wait for the next
    window."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: For notifications to one recipient on one channel.
    recipient: Cap | None = None
    #: For SMS to numbers that differ only in their last three digits.
    prefix: Cap | None = None


class Quota(BaseModel):
    """How much one producer may send in a day of NOTIFIER_TIMEZONE. There is a warning at 80 %. Notifications over
    the quota wait for the next day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    email: Annotated[int, Field(ge=1)] | None = None
    sms: Annotated[int, Field(ge=1)] | None = None


class SuppressionTable(BaseModel):
    """When there are too many hard bounces to be true: their suppressions then wait for an operator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: The highest credible share of messages that a provider or a sender identity sent in an hour; 1: no limit.
    max_hard_bounce_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    #: With fewer messages in an hour, nothing is concluded.
    min_messages: Annotated[int, Field(ge=1)] = 100


class Retention(BaseModel):
    """How long notifications of a channel are kept. Days count from the time in the notification's id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: After this, nobody can tell any more who got what, only that it was sent, when and how; unset: never.
    redact_after_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    #: After this, it is deleted; unset: never.
    drop_after_days: Annotated[int, Field(ge=1, le=36_500)] | None = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        redact, drop = self.redact_after_days, self.drop_after_days
        if redact is not None and drop is not None and drop < redact:
            raise ValueError("drop_after_days is less than redact_after_days: what is dropped needs no redaction")
        return self
