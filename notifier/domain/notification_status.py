"""The status of a notification as its producer asks for it: where it stands, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from notifier.domain.statuses import READY_STATUSES, SUCCESSFUL_STATUSES, Channel, Status

#: Header of a status request: `notifier.security.body_hash` of the message, in hex.
CONTENT_HEADER = "notifier-content-sha256"


@dataclass(frozen=True, slots=True)
class NotificationStatus:
    """The record's answer at one moment; it never changes by itself."""

    #: If the idempotency key was accepted before: the id of that earlier notification.
    id: UUID
    status: Status
    #: Why, one of `Reason`; None: nothing to explain. Text, because a newer service may know more reasons.
    reason: str | None
    #: The provider's own words, without personal data.
    detail: str | None
    #: The provider that took it, or that was called last.
    provider: str | None
    #: Number of provider calls.
    attempt_count: int
    accepted_at: datetime
    updated_at: datetime
    sent_at: datetime | None
    producer: str
    channel: Channel
    template: str
    #: Sent with a test key: no provider was called.
    is_test: bool

    @property
    def is_ready(self) -> bool:
        """Whether a provider took it, or nothing more happens by itself."""
        return self.status in READY_STATUSES

    @property
    def is_successful(self) -> bool:
        """Whether a provider took it, and has not reported since that it did not arrive."""
        return self.status in SUCCESSFUL_STATUSES
