"""Recurrences: when a plan is due, as a cron expression of five fields in a time zone.

A clock that goes forward skips local times; a clock that goes back repeats them. A skipped time is due when the
clock has gone forward, and a repeated time is due the first time: once in both cases. If the minutes or the hours
begin with `*`, elapsed time counts instead: an hour that is repeated gets two runs, a skipped hour none. Both are
the rules of Debian's cron.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A plan. `operations.recurring.recurrence_faults` has checked its parts before."""

    #: "30 9 * * 1-5"
    cron: str
    #: "Europe/Berlin"
    zone: str
    #: Nothing is due after this. None: it has no end.
    until: datetime | None = None

    def in_words(self) -> str:
        """`At 09:30 on Monday through Friday`"""
        return CronSim(self.cron, datetime(2026, 1, 1, tzinfo=UTC)).explain()

    def moments(self, after: datetime) -> Iterator[datetime]:
        """Every due moment after this one, in UTC and in order."""
        last = after
        for local in CronSim(self.cron, after.astimezone(ZoneInfo(self.zone))):
            moment = local.astimezone(UTC)
            if self.until is not None and moment > self.until:
                return
            # In an hour that is repeated, the library begins with its first time; and all plans for skipped times
            # come at the same moment.
            if moment > last:
                yield moment
                last = moment

    def next(self, after: datetime) -> datetime | None:
        """The first due moment after this one. None: there is none."""
        return next(self.moments(after), None)

    def latest(self, since: datetime, until: datetime) -> datetime | None:
        """The last due moment between the two, both inclusive. None: there is none."""
        found = None
        for moment in self.moments(since.replace(microsecond=0) - _SECOND):
            if moment > until:
                break
            if moment >= since:
                found = moment
        return found
