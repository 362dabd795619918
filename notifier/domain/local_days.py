"""Time zones and their days: when each begins and ends, and when something daily is done.

A clock that goes forward skips local times, and one that goes back repeats them. What is to be done at a skipped
time is done that much later, and at a repeated one the first time: once a day, on every day.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

_DAY = timedelta(days=1)
#: Files that many machines have beside the zones: one says what the machine is set to, the other that it is not.
_NO_ZONES = ("localtime", "Factory")


def zone_of(name: str) -> ZoneInfo:
    """The zone of this name of the IANA database.

    Raises:
        ValueError: there is none. A name that means another zone on another machine, or counts leap seconds, as
            "localtime" and "right/Europe/Berlin", is none.
    """
    if name not in _names():
        raise ValueError("is not a time zone: write an IANA name, such as Asia/Shanghai or Europe/Berlin")
    return ZoneInfo(name)


@cache
def _names() -> set[str]:
    return available_timezones().difference(_NO_ZONES)


def moment_of(day: date, at: time, zone: ZoneInfo) -> datetime:
    """That local time of the day, in UTC."""
    # With fold=0 a skipped time has the offset from before the change, so that it lies behind the gap.
    return datetime.combine(day, at, zone).astimezone(UTC)


def day_bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """When the day begins (inclusive) and ends (exclusive), in UTC. Days leave no gap and do not overlap."""
    return moment_of(day, time(), zone), moment_of(day + _DAY, time(), zone)


def check_day(day: date) -> date:
    """The day. Raises `ValueError` for one that nobody means, and whose bounds may be no times."""
    if not 1970 <= day.year < 3000:
        raise ValueError("write a day from 1970 to 2999")
    return day


def day_of(moment: datetime, zone: ZoneInfo) -> date:
    """The day whose bounds the moment lies within."""
    shown = moment.astimezone(zone).date()
    # A clock that goes back over midnight shows the day before once more.
    return next(day for day in (shown + _DAY, shown, shown - _DAY) if moment_of(day, time(), zone) <= moment)


def next_daily(after: datetime, at: time, zone: ZoneInfo) -> datetime:
    """The first moment after `after` at which something that is done daily at `at` is done, in UTC."""
    today = after.astimezone(zone).date()
    moments = (moment_of(today + days * _DAY, at, zone) for days in range(-1, 4))
    return next(moment for moment in moments if moment > after)


def local_time(moment: datetime, zone: str) -> str:
    """As the clocks of the zone show it: `Tue 2026-12-01 09:30 CET`."""
    return f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M %Z}"
