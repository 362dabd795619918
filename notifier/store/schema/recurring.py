"""The tables of recurring notifications: see `operations.recurring`."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Integer, LargeBinary, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from notifier.store.schema.base import Base


class RecurringNotification(Base):
    """A plan, that is which message goes to a list of recipients and when; and its last run."""

    __tablename__ = "recurring_notifications"

    #: UUIDv7.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    producer: Mapped[str]
    #: If true, its messages reach no provider.
    is_test: Mapped[bool] = mapped_column(server_default=text("false"))
    name: Mapped[str]
    #: Five fields, read in `zone`.
    cron: Mapped[str]
    zone: Mapped[str]
    #: Nothing is due after this. None: it has no end.
    until: Mapped[datetime | None]
    #: Channel, lane, template, locale and sender of each message.
    channel: Mapped[str]
    lane: Mapped[str]
    template: Mapped[str]
    locale: Mapped[str | None]
    sender: Mapped[str | None]
    #: The context that all recipients share. None: sealed.
    context: Mapped[dict[str, Any] | None]
    #: The shared context, encrypted.
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    paused_at: Mapped[datetime | None]
    #: When it is due next. None: never again.
    next_at: Mapped[datetime | None]
    #: The moment that the last run is or was for. None: there was no run.
    run_at: Mapped[datetime | None]
    #: An operator or the producer asked for that run; it is not part of the plan.
    run_by_hand: Mapped[bool] = mapped_column(server_default=text("false"))
    #: The place in the list that the run has reached.
    run_position: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    run_accepted: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    run_refused: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: For the first recipients that were refused: the line of the list, and the fault.
    run_faults: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    #: When the run last made progress.
    run_moved_at: Mapped[datetime | None]
    #: None: the run is under way.
    run_finished_at: Mapped[datetime | None]
    #: Why a run was missed, was stopped, or makes no progress.
    note: Mapped[str | None]
    #: Token of the worker that holds it, and until when it does.
    claim_token: Mapped[UUID | None]
    leased_until: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("producer", "is_test", "name"),)


class RecurringRecipient(Base):
    """One recipient of a recurring notification."""

    __tablename__ = "recurring_recipients"

    #: UUIDv7.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    recurring_id: Mapped[UUID] = mapped_column(ForeignKey("recurring_notifications.id", ondelete="CASCADE"))
    #: Its place in the list: the line of the file that it came from.
    position: Mapped[int] = mapped_column(Integer)
    #: None, like `context`: sealed.
    recipient: Mapped[str | None]
    #: As in `messages`.
    address_hash: Mapped[bytes] = mapped_column(LargeBinary)
    #: The recipient's own context, which overrides the shared one.
    context: Mapped[dict[str, Any] | None]
    #: Recipient and context, encrypted.
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: Replaces the locale of the plan.
    locale: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("recurring_id", "position"),
        UniqueConstraint("recurring_id", "address_hash"),
        # For everything about one person.
        Index("ix_recurring_recipients_address_hash", "address_hash"),
    )


class EndedRecurringRun(Base):
    """A run that has ended or was missed. Each recurring notification keeps its latest runs."""

    __tablename__ = "recurring_runs"

    recurring_id: Mapped[UUID] = mapped_column(
        ForeignKey("recurring_notifications.id", ondelete="CASCADE"), primary_key=True
    )
    #: The moment that it was for.
    run_at: Mapped[datetime] = mapped_column(primary_key=True)
    #: Somebody asked for this run.
    by_hand: Mapped[bool]
    finished_at: Mapped[datetime]
    accepted: Mapped[int] = mapped_column(Integer)
    refused: Mapped[int] = mapped_column(Integer)
    #: Why it was missed, or ended early.
    note: Mapped[str | None]
