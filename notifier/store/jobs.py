"""Jobs: long actions on notifications that workers carry out, page by page.

A job is an operator record, plus the place where its next page begins. Nothing of its progress is in a worker's
memory. A worker takes the job under a number, so two workers never run it at the same time. Its hold lasts for
`LEASE_SECONDS` after each page, by the database's clock, and during a page by the lock of the job's row. A worker
that comes back with an earlier number finds that it has lost the job. Between two pages of a job with a rate
nobody holds it, and no worker waits: the job is due again when its next page is to be planned.

Crash points:

- before the job is committed: there is no job, and nobody was told that there is;
- after that, before its task is published or taken: it stays due, and the sweep dispatches it again;
- between two pages of a job with a rate: when it is due the sweep dispatches it, and any worker goes on;
- within a page: none of the page was done. A page is one transaction, together with the counts and the place where
  the next page begins;
- after a page: the lease runs out, the sweep dispatches the job again, and another worker goes on from that place.
  So each notification is changed once, even if it has failed again meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, TextClause, text

from notifier.domain.errors import NotFound, WrongSelection
from notifier.domain.statuses import JobState
from notifier.store import binds
from notifier.store.engine import transaction
from notifier.store.operator_actions import ActionCounts, Move, OperatorActions, begin_record, note_result
from notifier.store.repository import Repository
from notifier.store.rows import from_row
from notifier.store.selection import Selection

#: A worker that has not ended a page for this long has lost the job, unless it is still working on one. Seconds.
LEASE_SECONDS = 5
#: Maximum number of jobs dispatched at a time.
DISPATCHED = 10


@dataclass(frozen=True, slots=True)
class JobView:
    """A long action of an operator, and its progress. The counts mean the same as in `ActionCounts`."""

    #: The id of its operator record.
    id: UUID
    at: datetime
    operator: str
    action: str
    selection: dict[str, Any]
    reason: str | None
    state: JobState
    #: How many notifications it selected when it was created.
    total: int
    matched: int
    changed: int
    expired: int
    skipped: int
    #: The time when an operator asked to stop it.
    stop_asked_at: datetime | None
    #: None if it has not ended.
    finished_at: datetime | None
    #: Why it failed.
    failure: str | None


@dataclass(frozen=True, slots=True)
class JobPage:
    """A job whose next page is due, held by one worker."""

    id: UUID
    operator: str
    action: str
    selection: dict[str, Any]
    reason: str | None
    #: Counts so far.
    matched: int
    changed: int
    expired: int
    skipped: int
    last_id: UUID | None
    #: When the next notification of the job is due to be retried.
    next_at: datetime
    is_stopped: bool

    @property
    def tally(self) -> ActionCounts:
        return ActionCounts(self.matched, self.changed, self.expired, self.skipped)


class JobRepository(Repository):
    def __init__(self, engine: Engine, operator_actions: OperatorActions) -> None:
        super().__init__(engine)
        self._operator_actions = operator_actions

    def add(
        self,
        operator: str,
        action: str,
        selection: Mapping[str, Any],
        reason: str | None,
        *,
        total: int,
        next_at: datetime | None,
    ) -> UUID:
        """Add a job and its operator record. `selection` is as in `OperatorActions.begin`. `next_at`: when the
        first retry is due, if that is later than now."""
        with transaction(self._engine) as connection:
            begun = begin_record(connection, operator, action, selection, reason)
            row = {"id": begun.id, "total": total, "next_at": max(begun.at, next_at or begun.at)}
            connection.execute(_ADD, row)
        return begun.id

    def dispatch(self) -> list[UUID]:
        """Jobs that wait for a worker or have lost theirs. They are due again if no worker takes them soon."""
        with transaction(self._engine) as connection:
            return list(connection.execute(_DISPATCH, {"limit": DISPATCHED, **_LEASE}).scalars())

    def take(self, job: UUID) -> int | None:
        """The number under which the caller now holds the job. None: another worker holds it, or it has ended."""
        with transaction(self._engine) as connection:
            lease: int | None = connection.execute(_TAKE, {"id": job, **_LEASE}).scalar()
            return lease

    def work_page(self, job: UUID, lease: int, move_of: Callable[[JobPage], Move]) -> bool:
        """Do the next page, as `move_of` says. False: nothing is left to do for now, or another worker has the job
        by now."""
        with transaction(self._engine, plans_by_values=True) as connection:
            row = connection.execute(_HOLD, {"id": job, "lease": lease}).one_or_none()
            if row is None:
                return False
            page = from_row(JobPage, row)
            state = JobState.STOPPED
            if not page.is_stopped:
                move = move_of(page)
                done = self._operator_actions.move_page_in(
                    connection,
                    job,
                    Selection.of_record(page.selection),
                    move,
                    after=page.last_id,
                    tally=page.tally,
                )
                if done.last is not None:
                    pause = timedelta(seconds=move.pause_seconds * (done.tally.changed - page.changed))
                    next_at = page.next_at + pause
                    rest_until = next_at - timedelta(seconds=move.ahead_seconds) if move.pause_seconds else None
                    place = {"id": job, "last_id": done.last, "next_at": next_at, "rest_until": rest_until}
                    is_ahead = connection.execute(_GO_ON, {**place, **_LEASE}).scalar_one()
                    return not is_ahead
                state = JobState.DONE
            note_result(connection, job, page.tally, is_finished=True)
            connection.execute(_END, {"id": job, "lease": lease, "state": state, "failure": None})
            return False

    def give_back(self, job: UUID, lease: int) -> None:
        """Let another worker go on at once."""
        self._execute(_GIVE_BACK, {"id": job, "lease": lease})

    def fail(self, job: UUID, lease: int, failure: str) -> None:
        """End the job as failed, because the next worker would fail in the same way."""
        with transaction(self._engine) as connection:
            row = connection.execute(_HOLD, {"id": job, "lease": lease}).one_or_none()
            if row is not None:
                note_result(connection, job, from_row(JobPage, row).tally, is_finished=True)
                connection.execute(
                    _END, {"id": job, "lease": lease, "state": JobState.FAILED, "failure": failure[:500]}
                )

    def stop(self, job: UUID, operator: str, reason: str | None) -> None:
        """Ask the job to stop after the present page, and leave an operator record.

        Raises:
            NotFound: there is no such job.
            WrongSelection: it has ended.
        """
        state = self.find(job).state
        with transaction(self._engine) as connection:
            if not connection.execute(_STOP, {"id": job}).rowcount:
                raise WrongSelection(f"the job is {state}: there is nothing to stop")
            begun = begin_record(connection, operator, "stop_job", {"job": str(job)}, reason)
            note_result(connection, begun.id, ActionCounts(1, 1), is_finished=True)

    def find(self, job: UUID) -> JobView:
        """The job. Raises `NotFound`."""
        found = self._records(JobView, _FIND, {"id": job})
        if not found:
            raise NotFound(f"no job has the id {job}")
        return found[0]

    def page(self, *, limit: int, before: UUID | None = None) -> list[JobView]:
        """Newest first."""
        return self._records(JobView, _LIST, {"before": before, "limit": limit})


_LEASE = {"lease_seconds": LEASE_SECONDS}

# Columns of `operator_records AS r` and `jobs AS j`.
_COUNTS = ", ".join(
    f"coalesce(CAST(r.result->>'{name}' AS bigint), 0) AS {name}"
    for name in ("matched", "changed", "expired", "skipped")
)
_VIEW = f"""
SELECT r.id, r.at, r.operator, r.action, r.selection, r.reason, r.finished_at, {_COUNTS},
  j.state, j.total, j.stop_asked_at, j.failure
FROM jobs AS j JOIN operator_records AS r ON r.id = j.id
"""

_ADD: TextClause = text("INSERT INTO jobs (id, total, next_at) VALUES (:id, :total, :next_at)")

# A worker holds the lock of its job's row while it works on a page, however long that takes.
_DISPATCH: TextClause = text("""
UPDATE jobs SET state = 'waiting', due_at = now() + make_interval(secs => :lease_seconds)
WHERE id IN (SELECT id FROM jobs WHERE due_at <= now() ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
RETURNING id
""")

_TAKE: TextClause = text("""
UPDATE jobs SET state = 'running', lease = lease + 1, due_at = now() + make_interval(secs => :lease_seconds)
WHERE id = :id AND state = 'waiting' RETURNING lease
""")

_HOLD: TextClause = text(f"""
SELECT r.id, r.operator, r.action, r.selection, r.reason, {_COUNTS},
  j.last_id, greatest(now(), j.next_at) AS next_at, j.stop_asked_at IS NOT NULL AS is_stopped
FROM jobs AS j JOIN operator_records AS r ON r.id = j.id
WHERE j.id = :id AND j.lease = :lease AND j.state = 'running' FOR UPDATE OF j
""")

# The lease runs from now, not from when the page began. Returns whether the job is ahead of its rate, and rests.
_GO_ON: TextClause = text("""
UPDATE jobs SET last_id = :last_id, next_at = :next_at,
  due_at = CASE WHEN CAST(:rest_until AS timestamptz) > clock_timestamp() THEN :rest_until
    ELSE clock_timestamp() + make_interval(secs => :lease_seconds) END
WHERE id = :id RETURNING coalesce(due_at = :rest_until, false)
""")

_END: TextClause = text("""
UPDATE jobs SET state = :state, failure = :failure, due_at = NULL WHERE id = :id AND lease = :lease
""")

_GIVE_BACK: TextClause = text("""
UPDATE jobs SET state = 'waiting', due_at = now() WHERE id = :id AND lease = :lease AND state = 'running'
""")

_STOP: TextClause = text("""
UPDATE jobs SET stop_asked_at = coalesce(stop_asked_at, now()),
  -- At a slow rate, a job may rest for long between two pages. A worker that works on it ends it earlier.
  due_at = least(due_at, now() + interval '1 second')
WHERE id = :id AND due_at IS NOT NULL
""")

_FIND: TextClause = text(f"{_VIEW} WHERE j.id = :id")

_LIST: TextClause = text(f"""
{_VIEW} WHERE :before IS NULL OR j.id < :before ORDER BY j.id DESC LIMIT :limit
""").bindparams(binds.uuid("before"))
