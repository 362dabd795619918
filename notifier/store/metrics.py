"""Counts for monitoring; nothing about a person.

Each number is read through an index that holds little else: it costs what waits now, not what ever was.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import TextClause, text

from notifier.store.engine import transaction
from notifier.store.ledger_sql import LIVE
from notifier.store.repository import Repository
from notifier.store.rows import from_row


@dataclass(frozen=True, slots=True)
class QueueBacklog:
    channel: str
    lane: str
    status: str
    count: int


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls to a provider within the last hour that ended alike."""

    provider: str
    outcome: str
    count: int


@dataclass(frozen=True, slots=True)
class CallbackCounts:
    producer: str
    #: Not told yet.
    waiting: int
    #: Given up, until somebody replays them.
    parked: int
    suspended_endpoints: int
    #: Ever.
    delivered: int
    #: Calls, ever.
    failed: int


@dataclass(frozen=True, slots=True)
class Gauges:
    waiting: tuple[QueueBacklog, ...]
    #: Their time has come, and no sweep has seen them yet.
    due: int
    #: How long ago the time of the oldest of these came; 0 without any. Seconds.
    oldest_due_seconds: float
    calls: tuple[Calls, ...]
    #: Within the last hour.
    rejected: int
    callbacks: tuple[CallbackCounts, ...] = ()


class GaugeRepository(Repository):
    def read(self) -> Gauges:
        with transaction(self._engine) as connection:
            waiting = tuple(from_row(QueueBacklog, row) for row in connection.execute(_WAITING))
            due = connection.execute(_DUE).one()
            calls = tuple(from_row(Calls, row) for row in connection.execute(_CALLS))
            rejected = connection.execute(_REJECTED).scalar_one()
            callbacks = tuple(from_row(CallbackCounts, row) for row in connection.execute(_CALLBACKS))
        return Gauges(
            waiting=waiting,
            due=due.total,
            oldest_due_seconds=float(due.seconds),
            calls=calls,
            rejected=rejected,
            callbacks=callbacks,
        )


_WAITING: TextClause = text(f"""
SELECT m.channel, m.lane, n.status, count(*)::int AS count FROM states AS n JOIN messages AS m ON m.id = n.id
WHERE {LIVE}
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
""")  # noqa: S608 - a constant

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
