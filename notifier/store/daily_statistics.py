"""Counts of whole days, which stay when retention deletes the notifications.

Crash points: each day is one transaction, so it is counted or it is not; the next night counts it again. If two
programs count at the same time, one waits for the other and sees what it wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from sqlalchemy import Float, TextClause, and_, cast, func, select, text

from notifier.domain.statuses import LIVE_STATUSES, Status
from notifier.store import binds
from notifier.store.advisory_locks import AdvisoryLock, take_lock
from notifier.store.engine import allow_seconds, transaction
from notifier.store.repository import Repository
from notifier.store.schema.operations import DailyStatistic
from notifier.store.schema.partitions import first_id

#: Notifications that were not to be sent, or not yet: they do not count in the share sent within ten seconds.
NOT_TO_BE_SENT = (Status.SCHEDULED, Status.CANCELLED, Status.SUPPRESSED)

#: A day of ten million notifications takes half a minute, and longer if they are read from a slow disk.
_COUNTING_SECONDS = 600.0


class StatisticsKey(StrEnum):
    """What the counts are grouped by."""

    DAY = "day"
    CHANNEL = "channel"
    LANE = "lane"
    TEMPLATE = "template"
    PROVIDER = "provider"
    PRODUCER = "producer"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class StatisticsRow:
    #: One value for each requested key, in their order.
    values: tuple[date | str, ...]
    count: int
    #: 95 % of those that were sent took at most this long. Of several counts the largest value, so an upper bound.
    sent_seconds_p95: float | None
    #: Of those that were to be sent, the share (0 to 1) that was sent within ten seconds of being accepted or, if
    #: later, due. Those never sent count as late. None: none was to be sent, or the count is older than this.
    share_within_10s: float | None


class StatisticsRepository(Repository):
    def count_day(self, day: date, bounds: tuple[datetime, datetime]) -> bool:
        """Count the notifications with ids within `bounds`, and write the counts as those of `day`.

        Returns False, and leaves the day as it is, if there are fewer than were counted before. Then retention has
        begun to delete them, or the day was counted in another time zone, which looks the same.
        """
        low, high = map(first_id, bounds)
        with transaction(self._engine, plans_by_values=True) as connection:
            allow_seconds(connection, _COUNTING_SECONDS)
            take_lock(connection, AdvisoryLock.DAILY_STATISTICS)
            return bool(connection.execute(COUNT_DAY, {"day": day, "low": low, "high": high}).rowcount)

    def unended_days(self, since: date, until: date, *, limit: int) -> list[date]:
        """Days from `since` to before `until` of which something had not ended when they were counted: those that
        were counted longest ago first."""
        day = DailyStatistic.day
        query = select(day).where(day >= since, day < until, DailyStatistic.status.in_(LIVE_STATUSES))
        query = query.group_by(day).order_by(func.min(DailyStatistic.counted_at), day).limit(limit)
        return [row.day for row in self._rows(query)]

    def rows(self, since: date, until: date, by: Sequence[StatisticsKey]) -> list[StatisticsRow]:
        """Sums of the days from `since` to before `until`, in the order of `by`. If `by` has the day, a day
        without notifications has a row, too."""
        keys = [getattr(DailyStatistic, key) for key in by]
        sums = (func.sum(DailyStatistic.count), func.max(DailyStatistic.sent_seconds_p95), _SHARE)
        query = select(*keys, *sums).where(DailyStatistic.day >= since, DailyStatistic.day < until)
        if StatisticsKey.DAY not in by:
            query = query.where(DailyStatistic.count > 0)
        rows = self._rows(query.group_by(*keys).order_by(*keys))
        return [StatisticsRow(tuple(row[:-3]), int(row[-3]), *row[-2:]) for row in rows]


_IS_WANTED = and_(DailyStatistic.sent_within_10s.is_not(None), DailyStatistic.status.not_in(NOT_TO_BE_SENT))
_SHARE = cast(
    func.sum(DailyStatistic.sent_within_10s).filter(_IS_WANTED)
    / func.nullif(func.sum(DailyStatistic.count).filter(_IS_WANTED), 0),
    Float,
)

_KEYS = "channel, template, provider, producer, status, lane"
_FROM = "greatest(m.accepted_at, m.send_at)"

# The bounds are given for both tables, so that the planner reads only a range of each. A group that a status has
# left is deleted, so that its notifications are not counted twice.
COUNT_DAY: TextClause = text(f"""
WITH counted AS MATERIALIZED (
  SELECT m.channel, m.template, coalesce(s.provider, '') AS provider, m.producer, s.status, m.lane,
    count(*) AS count, percentile_disc(0.95) WITHIN GROUP (
      ORDER BY CAST(extract(epoch FROM s.sent_at - {_FROM}) AS float8)
    ) AS sent_seconds_p95,
    count(*) FILTER (WHERE s.sent_at <= {_FROM} + interval '10 seconds') AS sent_within_10s
  FROM messages AS m JOIN states AS s ON s.id = m.id
  WHERE m.id >= :low AND m.id < :high AND s.id >= :low AND s.id < :high AND NOT s.is_test
  GROUP BY 1, 2, 3, 4, 5, 6
), written AS MATERIALIZED (
  SELECT {_KEYS}, count, sent_seconds_p95, sent_within_10s FROM counted
  UNION ALL
  SELECT '', '', '', '', '', '', 0, NULL, 0 WHERE NOT EXISTS (SELECT FROM counted)
), whole AS MATERIALIZED (
  SELECT 1 WHERE (SELECT sum(count) FROM written)
    >= (SELECT coalesce(sum(count), 0) FROM daily_statistics WHERE day = :day)
), left_behind AS (
  DELETE FROM daily_statistics AS d
  WHERE d.day = :day AND EXISTS (SELECT FROM whole) AND NOT EXISTS (
    SELECT FROM written AS w WHERE (w.channel, w.template, w.provider, w.producer, w.status, w.lane)
      = (d.channel, d.template, d.provider, d.producer, d.status, d.lane)
  )
)
INSERT INTO daily_statistics AS d (day, {_KEYS}, count, sent_seconds_p95, sent_within_10s)
SELECT :day, {_KEYS}, count, sent_seconds_p95, sent_within_10s FROM written WHERE EXISTS (SELECT FROM whole)
ON CONFLICT (day, {_KEYS})
DO UPDATE SET count = excluded.count, sent_seconds_p95 = excluded.sent_seconds_p95,
  sent_within_10s = excluded.sent_within_10s, counted_at = now()
""").bindparams(*binds.BOUNDS)
