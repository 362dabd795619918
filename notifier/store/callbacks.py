"""Status callbacks in the record: dispatched, claimed under a lease, their results, and what operators ask for.

Crash points. A trigger makes the row, in the transaction that moves its notification. If the task is lost between
dispatch and claim, the row is due again. If the worker dies between claim and result, the lease ends and the call
is made again: an endpoint may get a callback twice, with the same id.
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

#: Most calls at once, by all workers together: of one endpoint, so that a slow one holds no more slots …
PER_ENDPOINT = 20
#: … of an endpoint whose last calls have all failed …
PER_FAILING = 2
#: … and of all endpoints of one producer.
PER_PRODUCER = 40
LIMITS = {"per_endpoint": PER_ENDPOINT, "per_failing": PER_FAILING, "per_producer": PER_PRODUCER}
#: A callback that was dispatched and that nobody claimed is dispatched again after this. Seconds.
GIVE_AGAIN_SECONDS = 30.0
#: An endpoint is suspended when every call for this long has failed, and at least this many.
SUSPEND_AFTER_SECONDS, SUSPEND_FAILURES = 3 * 86_400.0, 20
#: Delivered and parked callbacks are deleted after this. Days.
KEPT_DAYS = 31
#: Callbacks of one page of an operator's run, and of one transaction that deletes.
PAGE, FORGET_PAGE = 1000, 5000
#: The sweep runs every second; what was due this long ago is late. Seconds.
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
    #: Of this call.
    number: int
    #: Calls since it was made or replayed, this one included.
    tries: int
    #: None, like the next four: its notification is no longer in the record.
    channel: str | None
    reference: str | None
    metadata: dict[str, str] | None
    #: The message's own; None: the producer's configured one.
    callback_url: str | None
    #: Where its trace goes on; None also: it has none.
    traceparent: str | None
    #: Of a notification of a test key.
    is_test: bool
    is_in_record: bool
    #: Since it was made or replayed.
    age_seconds: float
    #: Unix time by the database's clock …
    claimed_at: float
    #: … and by this process's monotonic one.
    claimed_monotonic: float

    @property
    def log_ids(self) -> dict[str, str]:
        """For a log line about it."""
        return log_ids(self.notification_id, self.traceparent)


@dataclass(frozen=True, slots=True)
class CallbackResult:
    id: UUID
    number: int
    #: None: delivered.
    failure: CallbackFailure | None
    http_status: int | None = None
    #: Until the next call; None: there is none.
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
    """All conditions must hold; None: no condition."""

    producer: str | None = None
    endpoint: str | None = None
    notification: UUID | None = None
    state: CallbackState | None = None
    failure: CallbackFailure | None = None
    status: Status | None = None
    #: When the status changed.
    since: datetime | None = None
    until: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: str(value) for name, value in asdict(self).items() if value is not None}


_VIEW = columns_of(CallbackView, Callback)
_CALL = columns_of(CallView, CallbackAttempt)
_ENDPOINT = columns_of(EndpointView, CallbackEndpoint)


class CallbackRepository(Repository):
    def give_out(self, endpoint: str | None = None) -> dict[str, list[UUID]]:
        """Take what is due and has room, of one endpoint or of all: endpoint → ids. The caller publishes tasks.

        Safe to run at once with itself: rows are taken with SKIP LOCKED and their `due_at` moves with them.
        """
        found: dict[str, list[UUID]] = defaultdict(list)
        values = {"endpoint": endpoint, "again_after": GIVE_AGAIN_SECONDS, **LIMITS}
        with transaction(self._engine, plans_by_values=endpoint is not None) as connection:
            connection.execute(statements.PARK_SUSPENDED, {"limit": PAGE})
            for row in connection.execute(statements.GIVE_OUT, values):
                found[row.endpoint].append(row.id)
        return dict(found)

    def claim(self, ids: Sequence[UUID], *, lease_seconds: float) -> list[ClaimedCallback]:
        """Take those of `ids` that were dispatched, in their order; their attempt rows are committed."""
        begun = time.monotonic()
        rows = self._rows(statements.CLAIM, {"ids": list(ids), "lease": lease_seconds})
        return [from_row(ClaimedCallback, row, claimed_monotonic=begun) for row in rows]

    def record(self, results: Sequence[CallbackResult]) -> list[str]:
        """Returns the endpoints that these results suspend. Writing a result twice changes nothing."""
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
        """Delete callbacks that were settled `KEPT_DAYS` ago. Returns how many."""
        return self._execute_in_pages(statements.FORGET, {"days": KEPT_DAYS}, FORGET_PAGE)

    def search(self, wanted: CallbackFilter, *, limit: int, before: UUID | None = None) -> list[CallbackView]:
        """Newest first; `before` is the last id of the page before."""
        query = select(*_VIEW).where(*_conditions(wanted))
        return self._records(CallbackView, newest(query, Callback.id, limit=limit, before=before))

    def show(self, callback: UUID) -> tuple[CallbackView, list[CallView]]:
        """Raises `NotFound`."""
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
        return self._records(EndpointView, select(*_ENDPOINT).order_by(CallbackEndpoint.endpoint))

    def stuck(self) -> list[StuckCallbacks]:
        """Suspended endpoints, and those whose callbacks nobody calls; the oldest first."""
        # A plan for any time would expect a third of the table, and bring helpers to read it.
        with transaction(self._engine, plans_by_values=True) as connection:
            rows = connection.execute(statements.STUCK, {"late": LATE_SECONDS}).all()
        return [from_row(StuckCallbacks, row, count=row.total) for row in rows]

    def count(self, wanted: CallbackFilter, ids: Sequence[UUID] = ()) -> dict[tuple[str, str | None], int]:
        """(endpoint, failure) → how many callbacks a replay would find."""
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
        """Returns whether it was suspended."""
        return bool(self._rows(statements.RESUME, {"endpoint": endpoint}))


def _replayable(wanted: CallbackFilter, ids: Sequence[UUID]) -> list[ColumnElement[bool]]:
    """A filter finds what is parked; ids find what was delivered, too."""
    if ids:
        states = [CallbackState.PARKED, CallbackState.DELIVERED]
        return [among(Callback.id, ids), Callback.state.in_(states)]
    return [*_conditions(wanted), Callback.state == CallbackState.PARKED]


def _conditions(wanted: CallbackFilter) -> Iterator[ColumnElement[bool]]:
    yield from matching(Callback, wanted, "producer", "endpoint", "state", "failure", "status")
    if wanted.notification is not None:
        yield Callback.notification_id == wanted.notification
    yield from within(Callback.occurred_at, wanted.since, wanted.until)
