"""The table `[heartbeats]` of notifier.toml."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from notifier.domain.statuses import Channel, Lane


class HeartbeatTable(BaseModel):
    """Small messages to a mailbox and a number of our own, which show that each lane sends. Without a recipient
    there are none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Address that receives heartbeats by mail.
    email: Annotated[str, Field(pattern=r"^[^@\s<>]+@[^@\s<>]+$")] | None = None
    #: Number that receives heartbeats by SMS; each is charged as an SMS.
    sms: Annotated[str, Field(pattern=r"^\+[1-9][0-9]{1,14}$")] | None = None
    #: Lanes that have heartbeats.
    lanes: Annotated[frozenset[Lane], Field(min_length=1)] = frozenset({Lane.URGENT})
    #: Minutes between two heartbeats of a lane.
    every_minutes: Annotated[int, Field(ge=1, le=1440)] = 15

    @property
    def interval(self) -> timedelta:
        return timedelta(minutes=self.every_minutes)

    def recipients(self) -> Iterator[tuple[Channel, Lane, str]]:
        """One for each channel and lane that has heartbeats, in order."""
        for channel, recipient in ((Channel.EMAIL, self.email), (Channel.SMS, self.sms)):
            if recipient is not None:
                for lane in Lane:
                    if lane in self.lanes:
                        yield channel, lane, recipient
