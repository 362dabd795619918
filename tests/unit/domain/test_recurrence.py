"""When something that recurs is due, on ordinary days and where the clock changes, east and west of UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from notifier.domain.recurrence import Recurrence


def local(cron: str, zone: str, day: str, count: int) -> list[str]:
    """The first moments from the midnight of that day, as its people read their clocks."""
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)) - timedelta(seconds=1)
    found = islice(Recurrence(cron, zone).moments(start), count)
    return [moment.astimezone(ZoneInfo(zone)).strftime("%d %H:%M %z") for moment in found]


@pytest.mark.parametrize(
    ("zone", "day", "cron", "expected"),
    [
        # The clock goes forward: when it has gone.
        ("Europe/Berlin", "2027-03-28", "30 2 * * *", ["28 03:00 +0200", "29 02:30 +0200"]),
        ("America/New_York", "2026-03-08", "15 2 * * *", ["08 03:00 -0400", "09 02:15 -0400"]),
        ("Australia/Lord_Howe", "2026-10-04", "10 2 * * *", ["04 02:30 +1100", "05 02:10 +1100"]),
        # Twice skipped is due once, and what follows at that moment is, too.
        ("Europe/Berlin", "2027-03-28", "10,50 2,3 * * *", ["28 03:00 +0200", "28 03:10 +0200", "28 03:50 +0200"]),
        ("Europe/Berlin", "2027-03-28", "0 2,3 * * *", ["28 03:00 +0200", "29 02:00 +0200"]),
        # It goes back: the first time, and not again.
        ("Europe/Berlin", "2026-10-25", "30 2 * * *", ["25 02:30 +0200", "26 02:30 +0100"]),
        ("America/New_York", "2026-11-01", "30 1 * * *", ["01 01:30 -0400", "02 01:30 -0500"]),
        ("Australia/Lord_Howe", "2027-04-04", "45 1 * * *", ["04 01:45 +1100", "05 01:45 +1030"]),
        # At midnight.
        ("America/Sao_Paulo", "2018-11-04", "0 0 * * *", ["04 01:00 -0200", "05 00:00 -0200"]),
        # Every hour gets its own.
        ("Europe/Berlin", "2026-10-25", "30 */2 * * *", ["25 00:30 +0200", "25 02:30 +0200", "25 02:30 +0100"]),
        ("Europe/Berlin", "2027-03-28", "0 * * * *", ["28 00:00 +0100", "28 01:00 +0100", "28 03:00 +0200"]),
        ("Asia/Shanghai", "2026-12-04", "30 9 * * 1-5", ["04 09:30 +0800", "07 09:30 +0800", "08 09:30 +0800"]),
    ],
)  # fmt: skip
def test_a_local_time_is_due_once_whatever_its_clock_does(
    zone: str, day: str, cron: str, expected: list[str]
) -> None:
    assert local(cron, zone, day, len(expected)) == expected


def test_from_within_a_repeated_hour_it_goes_forward() -> None:
    plan = Recurrence("10,30,50 2 * * *", "Europe/Berlin")
    first = datetime(2026, 10, 25, 0, 10, tzinfo=UTC)
    due = [first, first + timedelta(minutes=20), first + timedelta(minutes=40)]
    assert list(islice(plan.moments(first - timedelta(seconds=1)), 3)) == due
    # 02:20 for the second time.
    again = datetime(2026, 10, 25, 1, 20, tzinfo=UTC)
    assert plan.next(again) == datetime(2026, 10, 26, 1, 10, tzinfo=UTC)
    assert plan.latest(due[0], again) == due[2]


def test_the_latest_of_a_span_is_found_and_an_end_holds() -> None:
    end = datetime(2026, 12, 1, 12, tzinfo=UTC)
    plan = Recurrence("0 12 * * *", "UTC", end)
    assert plan.latest(end, end) == end
    assert plan.latest(end - timedelta(days=3), end - timedelta(seconds=1)) == end - timedelta(days=1)
    assert plan.latest(end - timedelta(hours=1), end - timedelta(seconds=1)) is None
    assert plan.latest(end + timedelta(microseconds=1), end + timedelta(days=2)) is None
    assert plan.next(end - timedelta(seconds=1)) == end
    assert plan.next(end) is None
