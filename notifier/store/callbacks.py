"""Status callbacks as they are kept: given out, claimed under a lease, their results, and what operators ask for.

Crash points. The row is made in the transaction that moves its notification, by a trigger. Between giving out and
the claim the task may be lost: the row is due again. Between the claim and the result the worker may die: the
lease ends and it is called again, so an endpoint may get a callback twice, with the same id.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Engine, func, select

from notifier.domain.errors import NotFound
from notifier.domain.statuses import ENDPOINT_FAILURES, CallbackFailure, CallbackState, Status
from notifier.store import callback_sql as statements
from notifier.store.engine import transaction
from notifier.store.operator_actions import ActionCounts, among, note_result
from notifier.store.rows import columns_of, from_row
from notifier.store.schema.callbacks import Callback, CallbackAttempt, CallbackEndpoint

#: So many calls of one endpoint at once, by all workers together: a slow one holds no more slots than these.
PER_ENDPOINT = 20
#: … of one whose last calls have all failed …
PER_FAILING = 2
#: … and of all endpoints of one producer.
PER_PRODUCER = 40
LIMITS = {"per_endpoint": PER_ENDPOINT, "per_failing": PER_FAILING, "per_producer": PER_PRODUCER}
#: One that was given to the broker and that nobody took is given again after this. Seconds.
GIVE_AGAIN_SECONDS = 30.0
#: An endpoint is suspended when every call for so long has failed, and so many at least.
SUSPEND_AFTER_SECONDS, SUSPEND_FAILURES = 3 * 86_400.0, 20
#: Delivered and parked ones are dropped after this. Days.
KEPT_DAYS = 31
#: Callbacks of one page of an operator's run, and of one round of dropping.
PAGE, FORGET_PAGE = 1000, 5000
#: The sweep runs every second; what was due this long ago is late. Seconds.
LATE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class ClaimedCallback:
    """One callback in hand."""

    id: UUID
    sequence: int
    notification_id: UUID
    producer: str
    endpoint: str
    status: Status
    reason: str | None
    attempt: int | None
    occurred_at: datetime
    #: Of this call.
    number: int
    #: Calls since it was made or set going again, this one included.
    tries: int
    #: None, as the next three: its notification is in the record no more.
    channel: str | None
    reference: str | None
    metadata: dict[str, str] | None
    #: The message's own; None: the producer's configured one.
    callback_url: str | None
    #: Of a notification of a test key.
    is_test: bool
    is_in_record: bool
    #: Since it was made or set going again.
    age_seconds: float
    #: Unix time by the database's clock …
    claimed_at: float
    #: … and by this process's monotonic one.
    claimed_monotonic: float


@dataclass(frozen=True, slots=True)
class CallbackResult:
    """What one call came to."""

    id: UUID
    number: int
    #: None: delivered.
    failure: CallbackFailure | None
    http_status: int | None = None
    #: Until the next call; None: there is none.
    pause_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class EndpointView:
    """How an endpoint does."""

    endpoint: str
    producer: str
    failing_since: datetime | None
    failures: int
    failure: str | None
    http_status: int | None
    suspended_at: datetime | None
    delivered_count: int
    failed_count: int


@dataclass(frozen=True, slots=True)
class CallbackView:
    """One callback, for who looks at it."""

    id: UUID
    sequence: int
    notification_id: UUID
    producer: str
    endpoint: str
    status: str
    reason: str | None
    occurred_at: datetime
    state: str
    due_at: datetime | None
    attempt_count: int
    failure: str | None
    http_status: int | None
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class CallView:
    """One call of an endpoint."""

    number: int
    started_at: datetime
    finished_at: datetime | None
    http_status: int | None
    failure: str | None


@dataclass(frozen=True, slots=True)
class StuckCallbacks:
    """An endpoint that is suspended, or whose callbacks nobody calls."""

    cause: str
    endpoint: str
    oldest: datetime
    failure: str | None
    http_status: int | None
    #: Parked for it, or late.
    count: int


@dataclass(frozen=True, slots=True)
class CallbackFilter:
    """Which callbacks. All conditions must hold; None: no condition."""

    producer: str | None = None
    endpoint: str | None = None
    notification: UUID | None = None
    state: CallbackState | None = None
    failure: CallbackFailure | None = None
    status: Status | None = None
    #: The status changed then or later, and before that.
    since: datetime | None = None
    until: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form in which it is recorded."""
        return {name: str(value) for name, value in asdict(self).items() if value is not None}


_VIEW = columns_of(CallbackView, Callback)
_CALL = columns_of(CallView, CallbackAttempt)
_ENDPOINT = columns_of(EndpointView, CallbackEndpoint)


class CallbackRepository:
    """Thread-safe: it holds nothing but the engine. Every method raises `ServiceUnavailable`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def give_out(self, endpoint: str | None = None) -> dict[str, list[UUID]]:
        """Take what is due and has room, of one endpoint or of all: endpoint → ids. Their tasks are the caller's.

        Runs any number of times at once: rows are taken with SKIP LOCKED and their `due_at` moves with them.
        """
        found: dict[str, list[UUID]] = defaultdict(list)
        values = {"endpoint": endpoint, "again_after": GIVE_AGAIN_SECONDS, **LIMITS}
        with transaction(self._engine, plans_by_values=endpoint is not None) as connection:
            connection.execute(statements.PARK_SUSPENDED, {"limit": PAGE})
            for row in connection.execute(statements.GIVE_OUT, values):
                found[row.endpoint].append(row.id)
        return dict(found)

    def claim(self, ids: Sequence[UUID], *, lease_seconds: float) -> list[ClaimedCallback]:
        """Take those of `ids` that were given out, in their order; each with its attempt row committed."""
        begun = time.monotonic()
        values = {"ids": [str(value) for value in ids], "lease": lease_seconds}
        with transaction(self._engine) as connection:
            rows = connection.execute(statements.CLAIM, values).all()
        return [
            ClaimedCallback(
                id=row.id,
                sequence=row.sequence,
                notification_id=row.notification_id,
                producer=row.producer,
                endpoint=row.endpoint,
                status=Status(row.status),
                reason=row.reason,
                attempt=row.attempt,
                occurred_at=row.occurred_at,
                number=row.number,
                tries=row.tries,
                channel=row.channel,
                reference=row.reference,
                metadata=row.metadata,
                callback_url=row.callback_url,
                is_test=bool(row.is_test),
                is_in_record=row.is_in_record,
                age_seconds=float(row.age_seconds),
                claimed_at=float(row.claimed_at),
                claimed_monotonic=begun,
            )
            for row in rows
        ]

    def record(self, results: Sequence[CallbackResult]) -> list[str]:
        """Write results. Returns the endpoints that are suspended by them. Writing one twice changes nothing."""
        rows = [
            {**asdict(result), "is_endpoints": result.failure in ENDPOINT_FAILURES}
            for result in sorted(results, key=lambda result: result.id)
        ]
        values = {
            "rows": json.dumps(rows, default=str),
            "suspend_after": SUSPEND_AFTER_SECONDS,
            "suspend_failures": SUSPEND_FAILURES,
        }
        with transaction(self._engine) as connection:
            found = connection.execute(statements.RECORD, values).all()
        return [row.endpoint for row in found if row.is_suspended_now]

    def forget_old(self) -> int:
        """Drop what was settled long ago. Returns how many."""
        total = 0
        while True:
            with transaction(self._engine) as connection:
                values = {"days": KEPT_DAYS, "limit": FORGET_PAGE}
                count = connection.execute(statements.FORGET, values).rowcount
            total += count
            if count < FORGET_PAGE:
                return total

    def search(self, wanted: CallbackFilter, *, limit: int, before: UUID | None = None) -> list[CallbackView]:
        """Callbacks, newest first."""
        query = select(*_VIEW).where(*_conditions(wanted)).order_by(Callback.id.desc()).limit(limit)
        if before is not None:
            query = query.where(Callback.id < before)
        with transaction(self._engine, plans_by_values=True) as connection:
            return [from_row(CallbackView, row) for row in connection.execute(query)]

    def show(self, callback: UUID) -> tuple[CallbackView, list[CallView]]:
        """One callback, and the calls for it.

        Raises:
            NotFound: there is none with this id.
        """
        query: Any = select(*_VIEW).where(Callback.id == callback)
        calls: Any = select(*_CALL).where(CallbackAttempt.callback_id == callback)
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
            made = connection.execute(calls.order_by(CallbackAttempt.number)).all()
        if row is None:
            raise NotFound(f"no callback has the id {callback}; notifier callbacks list shows those there are")
        return from_row(CallbackView, row), [from_row(CallView, call) for call in made]

    def endpoints(self) -> list[EndpointView]:
        """Every endpoint that was ever called."""
        query: Any = select(*_ENDPOINT).order_by(CallbackEndpoint.endpoint)
        with transaction(self._engine) as connection:
            return [from_row(EndpointView, row) for row in connection.execute(query)]

    def stuck(self) -> list[StuckCallbacks]:
        """Suspended endpoints, and those whose callbacks nobody calls; the oldest first."""
        with transaction(self._engine) as connection:
            rows = connection.execute(statements.STUCK, {"late": LATE_SECONDS}).all()
        return [
            StuckCallbacks(
                cause=row.cause,
                endpoint=row.endpoint,
                oldest=row.oldest,
                failure=row.failure,
                http_status=row.http_status,
                count=row.total,
            )
            for row in rows
        ]

    def count(self, wanted: CallbackFilter, ids: Sequence[UUID] = ()) -> dict[tuple[str, str | None], int]:
        """(endpoint, failure) → how many callbacks a replay would find."""
        columns: list[Any] = [Callback.endpoint, Callback.failure]
        counted: Any = select(*columns, func.count()).group_by(*columns)
        with transaction(self._engine, plans_by_values=True) as connection:
            rows = connection.execute(counted.where(*_replayable(wanted, ids))).all()
        return {(row[0], row[1]): row[2] for row in rows}

    def replay_page(
        self, wanted: CallbackFilter, ids: Sequence[UUID], record: UUID, *, after: UUID | None, tally: ActionCounts
    ) -> tuple[ActionCounts, UUID | None]:
        """Set the next page going again. Returns the counts so far, and where the next page begins; None: the
        end."""
        query = select(Callback.id).where(*_replayable(wanted, ids)).order_by(Callback.id).limit(PAGE)
        if after is not None:
            query = query.where(Callback.id > after)
        with transaction(self._engine, plans_by_values=True) as connection:
            found = [str(row[0]) for row in connection.execute(query.with_for_update())]
            if not found:
                return tally, None
            connection.execute(statements.REPLAY, {"ids": found})
            tally += ActionCounts(len(found), len(found))
            note_result(connection, record, tally, is_finished=False)
        return tally, UUID(found[-1])

    def resume(self, endpoint: str) -> bool:
        """Call it again. Returns whether it was suspended."""
        with transaction(self._engine) as connection:
            return connection.execute(statements.RESUME, {"endpoint": endpoint}).first() is not None


def _replayable(wanted: CallbackFilter, ids: Sequence[UUID]) -> list[ColumnElement[bool]]:
    """By a filter what is parked; named by its id also what was delivered."""
    if ids:
        states = [CallbackState.PARKED, CallbackState.DELIVERED]
        return [among(Callback.id, ids), Callback.state.in_(states)]
    return [*_conditions(wanted), Callback.state == CallbackState.PARKED]


def _conditions(wanted: CallbackFilter) -> list[ColumnElement[bool]]:
    pairs = {
        Callback.producer: wanted.producer,
        Callback.endpoint: wanted.endpoint,
        Callback.notification_id: wanted.notification,
        Callback.state: wanted.state,
        Callback.failure: wanted.failure,
        Callback.status: wanted.status,
    }
    found: list[ColumnElement[bool]] = [column == value for column, value in pairs.items() if value is not None]
    if wanted.since is not None:
        found.append(Callback.occurred_at >= wanted.since)
    if wanted.until is not None:
        found.append(Callback.occurred_at < wanted.until)
    return found
