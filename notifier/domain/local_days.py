"""Time zones and their days: when a day begins and ends, and when a daily action is due.

A clock that goes forward skips local times; a clock that goes back repeats them. An action planned for a skipped
time is done that much later, and one for a repeated time is done the first time. So it is done once on every day.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

_DAY = timedelta(days=1)
#: Files beside the zones on many machines: the machine's own setting, and the mark that there is none.
_NO_ZONES = ("localtime", "Factory")


def zone_of(name: str) -> ZoneInfo:
    """The zone of this name in the IANA database.

    Raises:
        ValueError: there is no such zone. Names that mean another zone on another machine or count leap seconds,
            such as "localtime" and "right/Europe/Berlin", do not count.
    """
    if name not in _names():
        raise ValueError("is not a time zone: write an IANA name, such as Asia/Shanghai or Europe/Berlin")
    return ZoneInfo(name)


@cache
def _names() -> set[str]:
    return available_timezones().difference(_NO_ZONES)


def moment_of(day: date, at: time, zone: ZoneInfo) -> datetime:
    """This local time on this day, in UTC."""
    # With fold=0 a skipped time gets the offset from before the change, so the result lies after the gap.
    return datetime.combine(day, at, zone).astimezone(UTC)


def day_bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """When the day begins (inclusive) and ends (exclusive), in UTC. Days have no gaps and do not overlap."""
    return moment_of(day, time(), zone), moment_of(day + _DAY, time(), zone)


def check_day(day: date) -> date:
    """Return the day. Raises `ValueError` for a day that nobody means, and whose bounds may not be valid times."""
    if not 1970 <= day.year < 3000:
        raise ValueError("write a day from 1970 to 2999")
    return day


def day_of(moment: datetime, zone: ZoneInfo) -> date:
    """The day whose bounds the moment lies in."""
    shown = moment.astimezone(zone).date()
    # When a clock goes back over midnight, it shows the previous day once more.
    return next(day for day in (shown + _DAY, shown, shown - _DAY) if moment_of(day, time(), zone) <= moment)


def next_daily(after: datetime, at: time, zone: ZoneInfo) -> datetime:
    """The next time after `after`, in UTC, at which an action that is done daily at `at` is due."""
    today = after.astimezone(zone).date()
    moments = (moment_of(today + days * _DAY, at, zone) for days in range(-1, 4))
    return next(moment for moment in moments if moment > after)


def local_time(moment: datetime, zone: str) -> str:
    """The moment as clocks in the zone show it: `Tue 2026-12-01 09:30 CET`."""
    return f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M %Z}"
