"""The status of a notification, as its producer sees it, and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from notifier.domain.statuses import READY_STATUSES, SUCCESSFUL_STATUSES, Channel, Status

#: Header of a status request: `notifier.security.body_hash` of the message, in hex.
CONTENT_HEADER = "notifier-content-sha256"


@dataclass(frozen=True, slots=True)
class NotificationStatus:
    """The status of a notification at one moment. The object never updates itself."""

    #: The id of the earlier notification, if the idempotency key was accepted before.
    id: UUID
    status: Status
    #: One of `Reason`, or None if nothing is wrong. It is text, because a newer service may have more reasons.
    reason: str | None
    #: The provider's own words, without personal data.
    detail: str | None
    #: The provider that accepted it, or that was called last.
    provider: str | None
    #: Number of provider calls.
    attempt_count: int
    accepted_at: datetime
    updated_at: datetime
    sent_at: datetime | None
    producer: str
    channel: Channel
    template: str
    #: True if it was sent with a test key: no provider was called.
    is_test: bool

    @property
    def is_ready(self) -> bool:
        """Whether a provider accepted it, or nothing more happens by itself."""
        return self.status in READY_STATUSES

    @property
    def is_successful(self) -> bool:
        """Whether a provider accepted it, and has not reported since that it did not arrive."""
        return self.status in SUCCESSFUL_STATUSES
