"""Beat's daily entries through a year of a zone, on a clock that the test moves."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.beat import SchedulingError
from kombu.exceptions import OperationalError

from notifier.config.logs import configure
from notifier.operations.upkeep import DAILY_AT
from notifier.worker.schedule import DailySchedule, LiveScheduler

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


@pytest.mark.usefixtures("restored_logging")
def test_beat_says_once_that_the_broker_is_away_and_every_time_that_our_code_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(style="json")
    beat = LiveScheduler(Celery("test", broker="memory://", set_as_current=False), lazy=True)
    entry = beat.Entry("dispatch-due", "notifier.dispatch", schedule=timedelta(seconds=1), app=beat.app)
    causes: list[Exception | None] = [OperationalError("refused")] * 5 + [KeyError("a bug")] * 2 + [None] * 2

    def apply_async(*_: Any, **__: Any) -> None:
        cause = causes.pop(0)
        if cause is not None:
            raise SchedulingError("Couldn't apply scheduled task") from cause

    beat.apply_async = apply_async
    while causes:
        beat.apply_entry(entry)
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line.get("error")) for line in said] == [
        ("beat.broker_away", "OperationalError"),
        ("beat.task_not_published", "KeyError"),
        ("beat.task_not_published", "KeyError"),
        ("beat.broker_back", None),
    ]
    assert said[0]["reason"] == "refused"
