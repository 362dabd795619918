"""Days of zones whose clocks change: at midnight, at two, by half an hour, and by a whole day."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from notifier.domain.local_days import day_bounds, day_of, moment_of, next_daily, zone_of

NEW_YORK, BERLIN, HAVANA = ZoneInfo("America/New_York"), ZoneInfo("Europe/Berlin"), ZoneInfo("America/Havana")


@pytest.mark.parametrize(
    "name",
    ["UTC", "Asia/Shanghai", "America/New_York", "Europe/Berlin", "America/Havana", "Australia/Lord_Howe"],
)
@pytest.mark.parametrize("at", [time(0, 5), time(2, 30), time(3, 7)])
def test_what_is_daily_is_done_once_on_every_day(name: str, at: time) -> None:
    zone = ZoneInfo(name)
    moment = datetime(2025, 1, 1, 12, tzinfo=UTC)
    first = day_of(moment, zone)
    for number in range(1, 800):
        moment = next_daily(moment, at, zone)
        assert day_of(moment, zone) == first + timedelta(days=number)
        assert moment.astimezone(zone).minute == at.minute


def test_a_local_time_that_is_skipped_comes_behind_the_gap_and_one_that_comes_twice_counts_once() -> None:
    assert moment_of(date(2026, 3, 8), time(2, 30), NEW_YORK) == datetime(2026, 3, 8, 7, 30, tzinfo=UTC)
    assert moment_of(date(2026, 3, 8), time(0, 5), HAVANA) == datetime(2026, 3, 8, 5, 5, tzinfo=UTC)
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert moment_of(date(2026, 10, 25), time(2, 30), BERLIN) == first
    assert next_daily(first, time(2, 30), BERLIN) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_days_have_23_to_25_hours_and_no_gap_between_them() -> None:
    hours = {}
    for day in (date(2026, 3, 29), date(2026, 3, 30), date(2026, 10, 25)):
        begins_at, ends_at = day_bounds(day, BERLIN)
        hours[day] = (ends_at - begins_at) / timedelta(hours=1)
        assert day_of(begins_at, BERLIN) == day
        assert day_of(begins_at - timedelta(microseconds=1), BERLIN) == day - timedelta(days=1)
        assert day_of(ends_at, BERLIN) == day + timedelta(days=1)
    assert list(hours.values()) == [23, 24, 25]


def test_a_clock_that_goes_back_over_midnight_leaves_each_moment_one_day() -> None:
    """St. John's showed 00:00 to 00:01 of the 7th, and then the last hour of the 6th once more."""
    zone = ZoneInfo("America/St_Johns")
    begins_at, _ = day_bounds(date(2010, 11, 7), zone)
    moments = (begins_at + timedelta(minutes=minute) for minute in range(90))
    assert {day_of(moment, zone) for moment in moments} == {date(2010, 11, 7)}


def test_a_day_that_never_was_is_empty() -> None:
    zone = ZoneInfo("Pacific/Apia")
    begins_at, ends_at = day_bounds(date(2011, 12, 30), zone)
    assert begins_at == ends_at
    assert day_of(begins_at, zone) == date(2011, 12, 31)
    assert next_daily(begins_at, time(0, 5), zone) == begins_at + timedelta(minutes=5)


@pytest.mark.parametrize(
    "name",
    [
        "localtime",
        "posixrules",
        "Factory",
        "right/Europe/Berlin",
        "posix/UTC",
        "Europe",
        "zone.tab",
        "../UTC",
        "Mars",
        "",
    ],
)
def test_what_is_only_a_file_of_this_machine_is_no_zone(name: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone"):
        zone_of(name)


def test_old_names_of_zones_are_zones() -> None:
    names = ["UTC", "US/Eastern", "Asia/Calcutta"]
    assert [zone_of(name).key for name in names] == names
