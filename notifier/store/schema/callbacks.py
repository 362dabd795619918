"""The tables of status callbacks. Triggers on `notifications` make the rows of `callbacks`: see
docs/explanation/callbacks.md."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from notifier.domain.statuses import CallbackState
from notifier.store.schema.base import Base, one_of


class Callback(Base):
    """One change of a notification's status, for its producer."""

    __tablename__ = "callbacks"

    #: UUIDv7; the header `webhook-id`.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: Rises with each callback, so the later of two callbacks of one notification has the higher number.
    sequence: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    notification_id: Mapped[UUID]
    producer: Mapped[str]
    #: The producer's name, for its configured endpoint. For a message's own URL, the server's name is added.
    endpoint: Mapped[str]
    #: Status and reason of the notification.
    status: Mapped[str]
    reason: Mapped[str | None]
    #: Number of provider calls of the notification until then. None: there was none.
    attempt: Mapped[int | None] = mapped_column(Integer)
    #: When its status changed.
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.now())
    state: Mapped[str] = mapped_column(server_default=text("'waiting'"))
    #: waiting: time of the next call; given: when it is dispatched again; calling: end of the lease; else None.
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    #: When it was made or last replayed: its 24 hours count from here.
    begun_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: Number of calls so far: the fencing token of the worker that makes a call.
    attempt_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: `attempt_count` when it was last replayed.
    replayed_attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: Why the last call failed, or why it is parked.
    failure: Mapped[str | None]
    #: HTTP status of the last call.
    http_status: Mapped[int | None] = mapped_column(Integer)
    #: When it was delivered or parked.
    settled_at: Mapped[datetime | None]

    __table_args__ = (
        one_of("state", CallbackState),
        # For the sweep: what is due, endpoint by endpoint.
        Index("ix_callbacks_due", "endpoint", "due_at", "sequence", postgresql_where=text("due_at IS NOT NULL")),
        # … and whether only little is due. The condition on the sequence is always true: only a query that repeats
        # it may use this index, because other queries would read through a whole backlog to find an endpoint's
        # callbacks.
        Index("ix_callbacks_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL AND sequence > 0")),
        Index("ix_callbacks_notification_id_sequence", "notification_id", "sequence"),
        Index("ix_callbacks_in_flight", "endpoint", postgresql_where=text("state IN ('given', 'calling')")),
        Index("ix_callbacks_parked", "endpoint", "id", postgresql_where=text("state = 'parked'")),
        Index("ix_callbacks_settled_at", "settled_at", postgresql_where=text("settled_at IS NOT NULL")),
    )


class CallbackAttempt(Base):
    """One call of an endpoint. The row is committed before the call and completed after it."""

    __tablename__ = "callback_attempts"

    callback_id: Mapped[UUID] = mapped_column(primary_key=True)
    #: From 1, in the order of the calls.
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: None while the call is under way.
    finished_at: Mapped[datetime | None]
    #: None: there was no answer.
    http_status: Mapped[int | None] = mapped_column(Integer)
    #: None once the call is finished: it was delivered.
    failure: Mapped[str | None]


class CallbackEndpoint(Base):
    """The state of an endpoint that has been called."""

    __tablename__ = "callback_endpoints"

    endpoint: Mapped[str] = mapped_column(primary_key=True)
    producer: Mapped[str]
    #: Time of the first failure since the last success.
    failing_since: Mapped[datetime | None]
    #: Number of failures since then.
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: Failure and HTTP status of the last one.
    failure: Mapped[str | None]
    http_status: Mapped[int | None] = mapped_column(Integer)
    #: Since when it is not called, until an operator resumes it.
    suspended_at: Mapped[datetime | None]
    #: Total numbers of callbacks delivered, and of calls that failed.
    delivered_count: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    failed_count: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
