"""One `[retry.<lane>]` of notifier.toml, and what holds without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from notifier.domain.statuses import Lane


class LaneRetry(BaseModel):
    """How a lane tries again: exponential back-off with full jitter, within a total deadline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Upper bound of the first pause; it doubles with each attempt.
    first_seconds: Annotated[float, Field(gt=0)]
    #: No pause is longer than this.
    max_seconds: Annotated[float, Field(gt=0)]
    #: After this long since the notification was due, the next failure is final.
    deadline_seconds: Annotated[float, Field(gt=0)]
    #: So many rounds at the most.
    max_attempts: Annotated[int, Field(ge=1)]


#: A code is worth something for minutes, a receipt for hours, a digest for a day.
DEFAULT_RETRIES: Mapping[Lane, LaneRetry] = {
    Lane.URGENT: LaneRetry(first_seconds=2, max_seconds=30, deadline_seconds=600, max_attempts=20),
    Lane.NORMAL: LaneRetry(first_seconds=15, max_seconds=900, deadline_seconds=6 * 3600, max_attempts=40),
    Lane.BULK: LaneRetry(first_seconds=60, max_seconds=3600, deadline_seconds=24 * 3600, max_attempts=40),
}
