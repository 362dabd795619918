"""The tables of feedback: hard bounces, mass alarms, held suppressions, and returned mails that cannot be read."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from notifier.store.schema.base import Base


class HardBounceCount(Base):
    """Numbers of answers in a minute that said the recipient does not exist, for the mass alarm."""

    __tablename__ = "hard_bounces"

    #: "provider:<name>" or "sender:<identity>".
    scope: Mapped[str] = mapped_column(primary_key=True)
    #: Start of the minute.
    minute: Mapped[datetime] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(Integer)
    #: How many of these were refused at once, and so never sent.
    refused: Mapped[int] = mapped_column(Integer)


class BounceAlarm(Base):
    """A provider or sender identity with too many hard bounces: suppressions that they would cause are held."""

    __tablename__ = "bounce_alarms"

    #: As in `hard_bounces`.
    scope: Mapped[str] = mapped_column(primary_key=True)
    #: When the alarm began.
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When the alarm ends, unless there are too many bounces again.
    until: Mapped[datetime]
    #: Number of hard bounces in the hour before the last judgement …
    bounced: Mapped[int] = mapped_column(Integer)
    #: … and of the mails sent.
    sent: Mapped[int] = mapped_column(Integer)


class HeldSuppression(Base):
    """A suppression that waits for an operator. Its columns are those of `suppressions`."""

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
    """A mail that came back to one of our return paths and that no parser could read."""

    __tablename__ = "unread_bounces"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    notification_id: Mapped[UUID]
    #: Number of the attempt whose return path it came to.
    attempt: Mapped[int] = mapped_column(Integer)
    #: SHA-256 of the mail, to recognise a repetition.
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    #: Full length. Bytes.
    size: Mapped[int] = mapped_column(BigInteger)
    #: The bytes as they came, at most the first 64 KiB. Empty if they are sealed.
    content: Mapped[bytes] = mapped_column(LargeBinary)
    #: The same bytes, encrypted. None: they are in `content`.
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)

    __table_args__ = (Index("uq_unread_bounces_notification_id", "notification_id", "digest", unique=True),)
