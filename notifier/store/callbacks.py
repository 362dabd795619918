"""Status callbacks in the record: dispatching, claiming under a lease, results, and what operators ask for.

Crash points. A trigger makes the row, in the transaction that changes its notification. If the task is lost
between dispatch and claim, the row is due again. If the worker dies between claim and result, the lease ends and
the call is made again: an endpoint may get a callback twice, with the same id.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, func, select

from notifier.domain.errors import NotFound
from notifier.domain.statuses import ENDPOINT_FAILURES, CallbackFailure, CallbackState, Status
from notifier.domain.trace_context import log_ids
from notifier.store import callback_sql as statements
from notifier.store.binds import among
from notifier.store.engine import transaction
from notifier.store.operator_actions import ActionCounts, act_on_page
from notifier.store.repository import Repository
from notifier.store.rows import columns_of, from_row, matching, newest, oldest, within
from notifier.store.schema.callbacks import Callback, CallbackAttempt, CallbackEndpoint

#: Maximum calls in hand of all workers together: for one endpoint, so that a slow one holds no more slots …
PER_ENDPOINT = 20
#: … for an endpoint whose last calls have all failed …
PER_FAILING = 2
#: … and for all endpoints of one producer.
PER_PRODUCER = 40
LIMITS = {"per_endpoint": PER_ENDPOINT, "per_failing": PER_FAILING, "per_producer": PER_PRODUCER}
#: A callback that was dispatched but not claimed is dispatched again after this. Seconds.
GIVE_AGAIN_SECONDS = 30.0
#: An endpoint is suspended when every call has failed for this long (seconds), and at least this many calls.
SUSPEND_AFTER_SECONDS, SUSPEND_FAILURES = 3 * 86_400.0, 20
#: Delivered and parked callbacks are deleted after this. Days.
KEPT_DAYS = 31
#: Maximum callbacks of one page of an operator's run, and of one transaction that deletes.
PAGE, FORGET_PAGE = 1000, 5000
#: Callbacks that were due this long ago are late: the sweep runs every second. Seconds.
LATE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class ClaimedCallback:
    id: UUID
    sequence: int
    notification_id: UUID
    producer: str
    endpoint: str
    status: Status
    reason: str | None
    attempt: int | None
    occurred_at: datetime
    #: Number of this call.
    number: int
    #: Number of calls since it was made or replayed, this one included.
    tries: int
    #: None, like the four fields that follow: its notification is no longer in the record.
    channel: str | None
    reference: str | None
    metadata: dict[str, str] | None
    #: The message's own; None: the producer's configured one.
    callback_url: str | None
    #: The context that its trace goes on from. None also if it has no trace.
    traceparent: str | None
    #: It belongs to a notification of a test key.
    is_test: bool
    is_in_record: bool
    #: Time since it was made or replayed.
    age_seconds: float
    #: Time of the claim in Unix time by the database's clock …
    claimed_at: float
    #: … and on this process's monotonic clock.
    claimed_monotonic: float

    @property
    def log_ids(self) -> dict[str, str]:
        """The fields of a log line about it."""
        return log_ids(self.notification_id, self.traceparent)


@dataclass(frozen=True, slots=True)
class CallbackResult:
    id: UUID
    number: int
    #: None: delivered.
    failure: CallbackFailure | None
    http_status: int | None = None
    #: Time until the next call. None: there is none.
    pause_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class EndpointView:
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
    number: int
    started_at: datetime
    finished_at: datetime | None
    http_status: int | None
    failure: str | None


@dataclass(frozen=True, slots=True)
class StuckCallbacks:
    """An endpoint that is suspended, or whose callbacks are not being called."""

    cause: str
    endpoint: str
    oldest: datetime
    failure: str | None
    http_status: int | None
    #: Number of its callbacks that are parked or late.
    count: int


@dataclass(frozen=True, slots=True)
class CallbackFilter:
    """All conditions must hold; None: no condition."""

    producer: str | None = None
    endpoint: str | None = None
    notification: UUID | None = None
    state: CallbackState | None = None
    failure: CallbackFailure | None = None
    status: Status | None = None
    #: Bounds of the time when the status changed.
    since: datetime | None = None
    until: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: str(value) for name, value in asdict(self).items() if value is not None}


_VIEW = columns_of(CallbackView, Callback)
_CALL = columns_of(CallView, CallbackAttempt)
_ENDPOINT = columns_of(EndpointView, CallbackEndpoint)


class CallbackRepository(Repository):
    def give_out(self, endpoint: str | None = None) -> dict[str, list[UUID]]:
        """Dispatch what is due and has room, of one endpoint or all: endpoint → ids. The caller publishes tasks.

        May run several times at once: rows are taken with SKIP LOCKED, and their `due_at` changes with them.
        """
        found: dict[str, list[UUID]] = defaultdict(list)
        values = {"endpoint": endpoint, "again_after": GIVE_AGAIN_SECONDS, **LIMITS}
        with transaction(self._engine, plans_by_values=endpoint is not None) as connection:
            connection.execute(statements.PARK_SUSPENDED, {"limit": PAGE})
            for row in connection.execute(statements.GIVE_OUT, values):
                found[row.endpoint].append(row.id)
        return dict(found)

    def claim(self, ids: Sequence[UUID], *, lease_seconds: float) -> list[ClaimedCallback]:
        """Claim those of `ids` that were dispatched, in their order, and commit the rows of their calls."""
        begun = time.monotonic()
        rows = self._rows(statements.CLAIM, {"ids": list(ids), "lease": lease_seconds})
        return [from_row(ClaimedCallback, row, claimed_monotonic=begun) for row in rows]

    def record(self, results: Sequence[CallbackResult]) -> list[str]:
        """Write results. Returns the endpoints that they suspend. Writing a result twice changes nothing."""
        rows = [
            {**asdict(result), "is_endpoints": result.failure in ENDPOINT_FAILURES}
            for result in sorted(results, key=lambda result: result.id)
        ]
        values = {
            "rows": json.dumps(rows, default=str),
            "suspend_after": SUSPEND_AFTER_SECONDS,
            "suspend_failures": SUSPEND_FAILURES,
        }
        return [row.endpoint for row in self._rows(statements.RECORD, values) if row.is_suspended_now]

    def forget_old(self) -> int:
        """Delete callbacks that were settled more than `KEPT_DAYS` ago. Returns how many."""
        return self._execute_in_pages(statements.FORGET, {"days": KEPT_DAYS}, FORGET_PAGE)

    def search(self, wanted: CallbackFilter, *, limit: int, before: UUID | None = None) -> list[CallbackView]:
        """Newest first. `before` is the last id of the previous page."""
        query = select(*_VIEW).where(*_conditions(wanted))
        return self._records(CallbackView, newest(query, Callback.id, limit=limit, before=before))

    def show(self, callback: UUID) -> tuple[CallbackView, list[CallView]]:
        """One callback with its calls. Raises `NotFound`."""
        query: Any = select(*_VIEW).where(Callback.id == callback)
        calls: Any = select(*_CALL).where(CallbackAttempt.callback_id == callback)
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
            made = connection.execute(calls.order_by(CallbackAttempt.number)).all()
        if row is None:
            raise NotFound(f"no callback has the id {callback}; `notifier callbacks list` shows the callbacks")
        return from_row(CallbackView, row), [from_row(CallView, call) for call in made]

    def endpoints(self) -> list[EndpointView]:
        """Every endpoint that was ever called."""
        return self._records(EndpointView, select(*_ENDPOINT).order_by(CallbackEndpoint.endpoint))

    def stuck(self) -> list[StuckCallbacks]:
        """Suspended endpoints, and those whose callbacks are not being called; oldest first."""
        # A plan for any values would expect a third of the table, and use parallel workers to read it.
        with transaction(self._engine, plans_by_values=True) as connection:
            rows = connection.execute(statements.STUCK, {"late": LATE_SECONDS}).all()
        return [from_row(StuckCallbacks, row, count=row.total) for row in rows]

    def count(self, wanted: CallbackFilter, ids: Sequence[UUID] = ()) -> dict[tuple[str, str | None], int]:
        """(endpoint, failure) → number of callbacks that a replay would find."""
        columns: list[Any] = [Callback.endpoint, Callback.failure]
        counted: Any = select(*columns, func.count()).group_by(*columns)
        return {(row[0], row[1]): row[2] for row in self._rows(counted.where(*_replayable(wanted, ids)))}

    def replay_page(
        self, wanted: CallbackFilter, ids: Sequence[UUID], record: UUID, *, after: UUID | None, tally: ActionCounts
    ) -> tuple[ActionCounts, UUID | None]:
        """Make the next page due again; see `act_on_page`."""

        def replay(connection: Connection, rows: Sequence[Any]) -> None:
            connection.execute(statements.REPLAY, {"ids": [row.id for row in rows]})

        query = oldest(select(Callback.id).where(*_replayable(wanted, ids)), Callback.id, limit=PAGE, after=after)
        return act_on_page(self._engine, query, record, tally, replay)

    def resume(self, endpoint: str) -> bool:
        """Let the endpoint be called again. Returns whether it was suspended."""
        return bool(self._rows(statements.RESUME, {"endpoint": endpoint}))


def _replayable(wanted: CallbackFilter, ids: Sequence[UUID]) -> list[ColumnElement[bool]]:
    """A filter finds parked callbacks; ids also find delivered ones."""
    if ids:
        states = [CallbackState.PARKED, CallbackState.DELIVERED]
        return [among(Callback.id, ids), Callback.state.in_(states)]
    return [*_conditions(wanted), Callback.state == CallbackState.PARKED]


def _conditions(wanted: CallbackFilter) -> Iterator[ColumnElement[bool]]:
    yield from matching(Callback, wanted, "producer", "endpoint", "state", "failure", "status")
    if wanted.notification is not None:
        yield Callback.notification_id == wanted.notification
    yield from within(Callback.occurred_at, wanted.since, wanted.until)
