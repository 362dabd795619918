"""Reads counts for monitoring, without anything about a person.

Each number is read through an index that holds little else. So it costs what waits now, not what ever was.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import TextClause, text

from notifier.domain.statuses import Status
from notifier.store import binds
from notifier.store.engine import transaction
from notifier.store.notification_rules import LIVE
from notifier.store.recurring import IS_RUNNING
from notifier.store.repository import Repository
from notifier.store.rows import from_row


@dataclass(frozen=True, slots=True)
class QueueBacklog:
    channel: str
    lane: str
    status: str
    count: int


@dataclass(frozen=True, slots=True)
class OldestQueued:
    """The `queued` notification of a channel and lane with the smallest id: nearly always the one that has waited
    longest. It may also be one that was scheduled long ago and has just become due, while another has waited for
    longer."""

    channel: str
    lane: str
    #: Time since it was accepted, since its `send_at`, or since an operator requeued it.
    seconds: float


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls to a provider within the last hour with the same outcome."""

    provider: str
    outcome: str
    count: int


@dataclass(frozen=True, slots=True)
class CallbackCounts:
    producer: str
    #: The producer has not been notified yet.
    waiting: int
    #: Given up until somebody replays them.
    parked: int
    suspended_endpoints: int
    #: Total number ever delivered.
    delivered: int
    #: Total number of calls that ever failed.
    failed: int


@dataclass(frozen=True, slots=True)
class Gauges:
    waiting: tuple[QueueBacklog, ...]
    #: Number of notifications whose time has come and that no sweep has seen yet.
    due: int
    #: How long the oldest of these has been due; 0 without any. Seconds.
    oldest_due_seconds: float
    calls: tuple[Calls, ...]
    #: Number within the last hour.
    rejected: int
    callbacks: tuple[CallbackCounts, ...] = ()
    oldest_queued: tuple[OldestQueued, ...] = ()
    #: How long a recurring notification has been due, or its run has made no progress; 0: none is due. Seconds.
    recurring_late_seconds: float = 0.0


class GaugeRepository(Repository):
    def read(self) -> Gauges:
        with transaction(self._engine) as connection:
            backlog = connection.execute(_WAITING).all()
            oldest = {"ids": [UUID(row.oldest) for row in backlog if row.status == Status.QUEUED]}
            oldest_queued = tuple(from_row(OldestQueued, row) for row in connection.execute(_OLDEST, oldest))
            due = connection.execute(_DUE).one()
            calls = tuple(from_row(Calls, row) for row in connection.execute(_CALLS))
            rejected = connection.execute(_REJECTED).scalar_one()
            callbacks = tuple(from_row(CallbackCounts, row) for row in connection.execute(_CALLBACKS))
            recurring = connection.execute(_RECURRING_LATE).scalar_one()
        return Gauges(
            waiting=tuple(from_row(QueueBacklog, row) for row in backlog),
            due=due.total,
            oldest_due_seconds=float(due.seconds),
            calls=calls,
            rejected=rejected,
            callbacks=callbacks,
            oldest_queued=oldest_queued,
            recurring_late_seconds=float(recurring),
        )


# Times of acceptance are in `messages`, and joining it would take seconds if a million wait. Ids sort by time, so
# the age of the smallest one is good enough. (PostgreSQL has no min(uuid) before 18.)
_WAITING: TextClause = text(f"""
SELECT n.channel, n.lane, n.status, count(*)::int AS count, min(CAST(n.id AS text) COLLATE "C") AS oldest
FROM states AS n WHERE {LIVE} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
""")  # noqa: S608 - a constant

_OLDEST: TextClause = text("""
SELECT n.channel, n.lane,
  CAST(extract(epoch FROM now() - greatest(m.accepted_at, m.send_at, n.replayed_at)) AS float8) AS seconds
FROM unnest(:ids) AS w(id) JOIN states AS n ON n.id = w.id JOIN messages AS m ON m.id = n.id
""").bindparams(binds.IDS)

_DUE: TextClause = text("""
SELECT count(*)::int AS total, coalesce(extract(epoch FROM now() - min(due_at)), 0) AS seconds
FROM states WHERE due_at <= now()
""")

_CALLS: TextClause = text("""
SELECT provider, replace(outcome, '_fault', '') AS outcome, sum(count)::int AS count FROM provider_outcomes
WHERE slice_at > now() - interval '1 hour' GROUP BY 1, 2 ORDER BY 1, 2
""")

_REJECTED: TextClause = text("""
SELECT count(*)::int FROM rejected_messages WHERE received_at > now() - interval '1 hour'
""")

_RECURRING_LATE: TextClause = text(f"""
SELECT coalesce(extract(epoch FROM now() - min(CASE WHEN {IS_RUNNING} THEN run_moved_at ELSE next_at END)), 0)
FROM recurring_notifications AS n WHERE paused_at IS NULL AND ({IS_RUNNING} OR next_at <= now())
""")  # noqa: S608 - a constant

_CALLBACKS: TextClause = text("""
SELECT producer, sum(waiting)::int AS waiting, sum(parked)::int AS parked,
  sum(suspended)::int AS suspended_endpoints, sum(delivered)::bigint AS delivered, sum(failed)::bigint AS failed
FROM (
  SELECT producer, count(*) AS waiting, 0 AS parked, 0 AS suspended, 0 AS delivered, 0 AS failed
  FROM callbacks WHERE due_at IS NOT NULL GROUP BY producer
  UNION ALL
  SELECT producer, 0, count(*), 0, 0, 0 FROM callbacks WHERE state = 'parked' GROUP BY producer
  UNION ALL
  SELECT producer, 0, 0, count(suspended_at), sum(delivered_count), sum(failed_count)
  FROM callback_endpoints GROUP BY producer
) AS counted
GROUP BY producer ORDER BY producer
""")
