"""Daily statistics: decides which days are counted, and returns what was counted.

Each night counts recent days again, because statuses change after their day: a mail bounces, a report is late, or
a message is accepted with an id of a month ago. If retention may have begun to delete a day, its earlier count
stays. This can also happen to a day that was counted in another time zone; docs/reference/database.md says what
that means for sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from notifier.domain.local_days import day_bounds, day_of
from notifier.domain.message import MAX_AGE
from notifier.store.daily_statistics import StatisticsKey, StatisticsRepository, StatisticsRow

#: How many days back each night counts. The last week, because most mail servers give up within five days and then
#: report it. Then once a week, until no message with an id of that day is accepted any more: two nights after its
#: last hour, because a clock may be changed in between.
RECOUNTED_DAYS = (*range(1, 8), *range(14, MAX_AGE.days + 2 + 7, 7))
#: Earlier days that a night counts again because something of them had not ended: it may be sent a year later.
UNENDED_DAYS = 5

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class StatisticsReport:
    rows: list[StatisticsRow]
    #: Days that are over but were not counted.
    missing: list[date]


class Statistics:
    """Counts days. `kept_from()`: nothing since then has been deleted; None: nothing is ever deleted."""

    def __init__(
        self, repository: StatisticsRepository, zone: ZoneInfo, kept_from: Callable[[], datetime | None]
    ) -> None:
        self._repository = repository
        self.zone = zone
        self._kept_from = kept_from

    def today(self) -> date:
        return day_of(self._repository.now(), self.zone)

    def count_recent_days(self) -> list[date]:
        """Count the days before today, latest first, then some days of which not everything had ended. Returns the
        days that were written."""
        today, kept_from = self.today(), self._kept_from()
        days = [today - days * _DAY for days in RECOUNTED_DAYS]
        since = date.min if kept_from is None else day_of(kept_from, self.zone)
        written = []
        for day in (*days, *self._repository.unended_days(since, days[-1], limit=UNENDED_DAYS)):
            bounds = day_bounds(day, self.zone)
            is_whole = kept_from is None or bounds[0] >= kept_from
            if is_whole and self._repository.count_day(day, bounds):
                written.append(day)
        return written

    def report(self, since: date, until: date, by: Sequence[StatisticsKey]) -> StatisticsReport:
        """What was counted for the days from `since` to before `until`."""
        counted = {row.values[0] for row in self._repository.rows(since, until, [StatisticsKey.DAY])}
        days = (since + number * _DAY for number in range((min(until, self.today()) - since).days))
        return StatisticsReport(
            self._repository.rows(since, until, by), [day for day in days if day not in counted]
        )
