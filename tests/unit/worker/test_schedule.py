"""Beat's daily entries through a year of a zone, on a clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from notifier.operations.upkeep import DAILY_AT
from notifier.worker.schedule import DailySchedule

STEP = timedelta(hours=1)


@pytest.mark.parametrize("name", ["Asia/Shanghai", "America/New_York", "Europe/Berlin", "America/Havana"])
def test_beat_starts_each_step_once_a_day(name: str) -> None:
    zone = ZoneInfo(name)
    now = began_at = datetime(2026, 1, 1, 12, tzinfo=UTC)
    entries = [DailySchedule(at, zone, lambda: now) for at in sorted(set(DAILY_AT.values()))]
    assert len(entries) == 3
    for entry in entries:
        now = last_run_at = began_at
        runs = []
        while now < began_at + timedelta(days=400):
            now += STEP
            is_due, seconds = entry.is_due(last_run_at)
            assert 0 < seconds <= 25 * 3600
            if is_due:
                last_run_at = now
                runs.append(now.astimezone(zone).date())
                assert entry.remaining_estimate(now) == timedelta(seconds=seconds)
        assert len(runs) == 400
        assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(runs))


def test_what_was_missed_is_done_once() -> None:
    now = datetime(2026, 1, 5, 12, tzinfo=UTC)
    entry = DailySchedule(DAILY_AT["statistics"], ZoneInfo("UTC"), lambda: now)
    assert entry.is_due(now - timedelta(days=3)) == (True, (12 * 60 + 5) * 60)
    assert entry.is_due(now) == (False, (12 * 60 + 5) * 60)
