"""How much there is of what, now: for monitoring. Counts only, nothing about a person.

Each number is read through an index that holds little besides it: it costs what waits, not what ever was.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, TextClause, text

from notifier.store.engine import transaction


@dataclass(frozen=True, slots=True)
class QueueBacklog:
    """Notifications of a channel and lane that have not ended."""

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
    """Status callbacks of one producer."""

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
    """Everything, at one moment."""

    waiting: tuple[QueueBacklog, ...]
    #: Their time has come, and no sweep has seen them yet.
    due: int
    #: How long ago the time of the oldest of these came; 0 without any. Seconds.
    oldest_due_seconds: float
    calls: tuple[Calls, ...]
    #: Within the last hour.
    rejected: int
    callbacks: tuple[CallbackCounts, ...] = ()


class GaugeRepository:
    """Reads. Thread-safe: it holds nothing but the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self) -> Gauges:
        """The numbers of now.

        Raises:
            ServiceUnavailable: the database cannot be used now.
        """
        with transaction(self._engine) as connection:
            waiting = tuple(QueueBacklog(*row) for row in connection.execute(_WAITING))
            due = connection.execute(_DUE).one()
            calls = tuple(Calls(*row) for row in connection.execute(_CALLS))
            rejected = connection.execute(_REJECTED).scalar_one()
            callbacks = tuple(CallbackCounts(*row) for row in connection.execute(_CALLBACKS))
        return Gauges(waiting, due.total, float(due.seconds), calls, rejected, callbacks)


_WAITING: TextClause = text("""
SELECT channel, lane, status, count(*)::int FROM notifications
WHERE status IN ('scheduled', 'queued', 'sending', 'retrying', 'unknown')
GROUP BY channel, lane, status ORDER BY channel, lane, status
""")

_DUE: TextClause = text("""
SELECT count(*)::int AS total, coalesce(extract(epoch FROM now() - min(due_at)), 0) AS seconds
FROM notifications WHERE due_at <= now()
""")

_CALLS: TextClause = text("""
SELECT provider, replace(outcome, '_fault', ''), sum(count)::int FROM provider_outcomes
WHERE slice_at > now() - interval '1 hour' GROUP BY 1, 2 ORDER BY 1, 2
""")

_REJECTED: TextClause = text("""
SELECT count(*)::int FROM rejected_messages WHERE received_at > now() - interval '1 hour'
""")

_CALLBACKS: TextClause = text("""
SELECT producer, sum(waiting)::int, sum(parked)::int, sum(suspended)::int, sum(delivered)::bigint,
  sum(failed)::bigint
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
