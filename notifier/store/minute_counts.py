"""Counts of each minute, for charts. Programs add their own counts, so no chart has to read notifications."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache

from sqlalchemy import TextClause, text

from notifier.store.engine import transaction
from notifier.store.repository import Repository
from notifier.store.rows import from_row

#: Charts show a week; one more day is kept.
KEPT_DAYS = 8


@dataclass(frozen=True, slots=True)
class MinuteAddition:
    """What a program has counted since its last write."""

    channel: str
    lane: str
    accepted: int
    #: A count for each bucket of `metrics.SENT_BOUNDS`, and one for longer times.
    sent: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FailedAddition:
    """Notifications that a program saw end without success since its last write."""

    channel: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class EndedCount:
    """Sends of one channel that ended within the same ten minutes."""

    channel: str
    #: The beginning of the ten minutes.
    begins_at: datetime
    #: Why they failed. None: they were sent.
    reason: str | None
    count: int


@dataclass(frozen=True, slots=True)
class WaitingNow:
    channel: str
    lane: str
    #: Number of notifications that have not ended yet.
    waiting: int


@dataclass(frozen=True, slots=True)
class SpanCounts:
    """All channels and lanes together in one span of time."""

    #: The beginning of the span.
    begins_at: datetime
    accepted: int
    #: By bucket, as in `MinuteAddition`.
    sent: list[int]
    #: The largest number that anybody saw waiting. None: nobody looked.
    waiting: int | None


class MinuteCountRepository(Repository):
    def add(self, counted: Sequence[MinuteAddition], failed: Sequence[FailedAddition] = ()) -> None:
        """Add to the counts of the present minute, by the database's clock; all or nothing."""
        if not counted and not failed:
            return
        # Always in the same order, because otherwise two programs might deadlock on each other's rows.
        ordered = sorted(counted, key=lambda one: (one.channel, one.lane))
        rows = [asdict(one) | {"sent": list(one.sent)} for one in ordered]
        failures = [asdict(one) for one in sorted(failed, key=lambda one: (one.channel, one.reason))]
        with transaction(self._engine) as connection:
            if rows:
                connection.execute(_ADD, rows)
            if failures:
                connection.execute(_ADD_FAILED, failures)

    def ended(self) -> list[EndedCount]:
        """Counts of the last hour. Reads a few hundred rows, whatever the volume."""
        return [from_row(EndedCount, row) for row in self._rows(_ENDED, is_one_statement=True)]

    def note_waiting(self, waiting: Sequence[WaitingNow]) -> None:
        """Write how many wait now, by channel and lane."""
        for one in sorted(waiting, key=lambda one: (one.channel, one.lane)):
            self._execute(_NOTE_WAITING, asdict(one), is_one_statement=True)

    def spans(self, since: datetime, seconds: int, buckets: int) -> list[SpanCounts]:
        """Spans of `seconds` each, oldest first, of all channels and lanes. Spans without counts are left out."""
        rows = self._rows(_spans(buckets), {"since": since, "seconds": seconds}, is_one_statement=True)
        return [from_row(SpanCounts, row) for row in rows]

    def forget_old(self) -> int:
        """Delete counts older than `KEPT_DAYS`. Returns the number of rows."""
        return sum(self._execute(statement, {"days": KEPT_DAYS}) for statement in _FORGET_OLD)


_ADD: TextClause = text("""
INSERT INTO minute_counts AS m (minute, channel, lane, accepted, sent)
VALUES (date_trunc('minute', now()), :channel, :lane, :accepted, CAST(:sent AS int[]))
ON CONFLICT (minute, channel, lane) DO UPDATE SET accepted = m.accepted + excluded.accepted, sent = (
  SELECT array_agg(coalesce(a.count, 0) + coalesce(b.count, 0) ORDER BY place)
  FROM unnest(m.sent) WITH ORDINALITY AS a(count, place)
  FULL JOIN unnest(excluded.sent) WITH ORDINALITY AS b(count, place) USING (place)
)
""")

_ADD_FAILED: TextClause = text("""
INSERT INTO failed_counts AS f (minute, channel, reason, count)
VALUES (date_trunc('minute', now()), :channel, :reason, :count)
ON CONFLICT (minute, channel, reason) DO UPDATE SET count = f.count + excluded.count
""")

_ENDED: TextClause = text("""
SELECT channel, date_bin('10 minutes', minute, 'epoch') AS begins_at, reason, sum(count)::int AS count FROM (
  SELECT minute, channel, NULL AS reason, (SELECT sum(each) FROM unnest(sent) AS each) AS count
  FROM minute_counts WHERE minute > now() - interval '1 hour'
  UNION ALL
  SELECT minute, channel, reason, count FROM failed_counts WHERE minute > now() - interval '1 hour'
) AS counted
WHERE count > 0 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
""")

_NOTE_WAITING: TextClause = text("""
INSERT INTO minute_counts AS m (minute, channel, lane, waiting)
VALUES (date_trunc('minute', now()), :channel, :lane, :waiting)
ON CONFLICT (minute, channel, lane) DO UPDATE SET waiting = excluded.waiting
""")


# Array elements are added up as columns: unnesting the arrays would make a million rows for a week.
@cache
def _spans(buckets: int) -> TextClause:
    places = range(1, buckets + 1)
    return text(f"""
WITH of_minute AS (
  SELECT minute, sum(accepted) AS accepted, sum(waiting)::int AS waiting,
    {", ".join(f"sum(sent[{place}]) AS sent_{place}" for place in places)}
  FROM minute_counts WHERE minute >= :since GROUP BY minute
)
SELECT date_bin(make_interval(secs => :seconds), minute, 'epoch') AS begins_at, sum(accepted)::int AS accepted,
  ARRAY[{", ".join(f"coalesce(sum(sent_{place}), 0)::int" for place in places)}] AS sent, max(waiting) AS waiting
FROM of_minute GROUP BY 1 ORDER BY 1
""")  # noqa: S608 - numbers


_FORGET_OLD = [
    text(f"DELETE FROM {table} WHERE minute < now() - make_interval(days => :days)")  # noqa: S608 - constants
    for table in ("minute_counts", "failed_counts")
]
