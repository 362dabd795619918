"""The tables of what comes back: counts of hard bounces, what an alarm holds, mails that nothing could read. See
`store.models`."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from notifier.store.schema.base import Base


class HardBounceCount(Base):
    """How many answers of a minute said that there is nobody: what the mass alarm is judged by."""

    __tablename__ = "hard_bounces"

    #: "provider:<name>" or "sender:<identity>".
    scope: Mapped[str] = mapped_column(primary_key=True)
    #: Start of the minute.
    minute: Mapped[datetime] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(Integer)
    #: So many of them were refused at once, and never sent.
    refused: Mapped[int] = mapped_column(Integer)


class BounceAlarm(Base):
    """A provider or a sender identity with too many hard bounces: what they would suppress is held."""

    __tablename__ = "bounce_alarms"

    #: As in `hard_bounces`.
    scope: Mapped[str] = mapped_column(primary_key=True)
    #: When it began.
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    #: It ends then, unless too many go on coming.
    until: Mapped[datetime]
    #: Hard bounces of the hour before it was last judged …
    bounced: Mapped[int] = mapped_column(Integer)
    #: … and the mails that they were judged against.
    sent: Mapped[int] = mapped_column(Integer)


class HeldSuppression(Base):
    """A suppression that waits for an operator. The columns are those of `suppressions`."""

    __tablename__ = "held_suppressions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    address_hash: Mapped[bytes] = mapped_column(LargeBinary)
    hash_key: Mapped[str]
    channel: Mapped[str]
    scope: Mapped[str]
    reason: Mapped[str]
    source: Mapped[str]
    detail: Mapped[str | None]
    notification_id: Mapped[UUID | None]
    expires_at: Mapped[datetime | None]
    provider: Mapped[str | None]
    sender: Mapped[str | None]
    held_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("uq_held_suppressions_address_hash", "address_hash", "scope", "reason", unique=True),)


class UnreadBounce(Base):
    """A mail that came back to a return path of ours, and that nothing could read."""

    __tablename__ = "unread_bounces"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    notification_id: Mapped[UUID]
    #: Number of the attempt whose return path it came to.
    attempt: Mapped[int] = mapped_column(Integer)
    #: SHA-256 of the mail: the same one again is known by it.
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    #: Its full length.
    size: Mapped[int] = mapped_column(BigInteger)
    #: The bytes as they came, at most the first 64 KiB; empty if they are sealed.
    content: Mapped[bytes] = mapped_column(LargeBinary)
    #: The same, encrypted; None: they stand in their column.
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)

    __table_args__ = (Index("uq_unread_bounces_notification_id", "notification_id", "digest", unique=True),)
