"""Beat's schedule, on a clock that goes on steadily."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import crontab, schedule

from notifier.broker import topology
from notifier.worker.names import (
    DAILY_EXPIRES_SECONDS,
    DISPATCH,
    LATE_UPKEEP,
    MINUTE_EXPIRES_SECONDS,
    PARTITIONS,
    RETENTION,
    STATISTICS,
    TICK_EXPIRES_SECONDS,
    TICK_SECONDS,
)


def beat_schedule() -> dict[str, Any]:
    """Every entry may run twice, late or not at all once: two Beats do no harm."""
    # Not Celery's `expires`: that is a moment of Beat's clock, which the worker compares with its own.
    # `expiration` is a span that RabbitMQ measures. Redis does not know it: see `tasks.Process.may_sweep`.
    tick = {"queue": topology.MAINTENANCE, "expiration": TICK_EXPIRES_SECONDS}
    minutely = {"queue": topology.MAINTENANCE, "expiration": MINUTE_EXPIRES_SECONDS}
    daily = {"queue": topology.MAINTENANCE, "expiration": DAILY_EXPIRES_SECONDS}
    # One clock for all of them: Celery keeps the entries in one order of times.
    now = _steady_clock()
    every, at_night = schedule(timedelta(seconds=TICK_SECONDS), nowfun=now), crontab(hour=3, minute=7, nowfun=now)
    # After the partitions, and away from what reports at midnight.
    later_at_night = crontab(hour=3, minute=37, nowfun=now)
    after_midnight, each_minute = crontab(hour=0, minute=5, nowfun=now), schedule(timedelta(minutes=1), nowfun=now)
    return {
        "dispatch-due": {"task": DISPATCH, "schedule": every, "options": tick},
        "partitions": {"task": PARTITIONS, "schedule": at_night, "options": daily},
        "retention": {"task": RETENTION, "schedule": later_at_night, "options": daily},
        "statistics": {"task": STATISTICS, "schedule": after_midnight, "options": daily},
        "late-upkeep": {"task": LATE_UPKEEP, "schedule": each_minute, "options": minutely},
    }


def _steady_clock() -> Callable[[], datetime]:
    """A clock that shows the time of now and goes on steadily: setting the machine's clock does not move it.

    By the machine's own, a Beat whose clock is set back an hour would send nothing for an hour.
    """
    began_at, began = datetime.now(UTC), time.monotonic()
    return lambda: began_at + timedelta(seconds=time.monotonic() - began)
