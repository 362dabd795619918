"""When something that recurs is due: a cron expression of five fields, in a time zone.

A clock that goes forward skips local times, and one that goes back repeats them. What is planned for a skipped
time is due when the clock has gone forward, and for a repeated one the first time: once. Where the minutes or the
hours begin with `*`, it goes by elapsed time, so that every hour gets its own: an hour that is there twice gets
two, one that is skipped none. Both are the rules of Debian's cron.
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
    """A plan. Its parts are right: `operations.recurring.recurrence_faults` has looked at them."""

    #: "30 9 * * 1-5"
    cron: str
    #: "Europe/Berlin"
    zone: str
    #: Nothing is due after that; None: it has no end.
    until: datetime | None = None

    def in_words(self) -> str:
        """`At 09:30 on Monday through Friday`"""
        return CronSim(self.cron, datetime(2026, 1, 1, tzinfo=UTC)).explain()

    def moments(self, after: datetime) -> Iterator[datetime]:
        """Every moment after this one, in UTC, in their order."""
        last = after
        for local in CronSim(self.cron, after.astimezone(ZoneInfo(self.zone))):
            moment = local.astimezone(UTC)
            if self.until is not None and moment > self.until:
                return
            # Within an hour that is repeated, the library begins with its first time; and what is planned for
            # several skipped times comes at the same moment.
            if moment > last:
                yield moment
                last = moment

    def next(self, after: datetime) -> datetime | None:
        """None: there is no further one."""
        return next(self.moments(after), None)

    def latest(self, since: datetime, until: datetime) -> datetime | None:
        """The last one between the two, both inclusive; None: there is none."""
        found = None
        for moment in self.moments(since.replace(microsecond=0) - _SECOND):
            if moment > until:
                break
            if moment >= since:
                found = moment
        return found
