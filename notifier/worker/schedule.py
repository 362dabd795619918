"""Beat's schedule, on a clock that runs steadily."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import Any
from zoneinfo import ZoneInfo

from celery.beat import Scheduler
from celery.schedules import BaseSchedule, schedstate, schedule
from kombu.exceptions import OperationalError

from notifier.broker import topology
from notifier.config.logs import Outage, log_failure
from notifier.domain.local_days import next_daily
from notifier.operations.upkeep import DAILY_AT
from notifier.telemetry.liveness import LIVENESS
from notifier.worker.names import (
    DAILY_EXPIRES_SECONDS,
    DISPATCH,
    HEARTBEATS,
    LATE_UPKEEP,
    MINUTE_EXPIRES_SECONDS,
    PARTITIONS,
    RECURRING,
    RETENTION,
    STATISTICS,
    TICK_EXPIRES_SECONDS,
    TICK_SECONDS,
)

#: Name of Beat's loop in `telemetry.liveness`.
_LOOP = "beat"


class LiveScheduler(Scheduler):  # type: ignore[misc]  # Celery ships no types
    """Celery's scheduler, which keeps nothing on disk, reports that its loop is alive, and logs once that the
    broker is away: by itself it writes a hundred lines for each task that it cannot publish."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._outage = Outage("beat.broker_away", "beat.broker_back")
        super().__init__(*arguments, **options)

    def tick(self, *arguments: Any, **options: Any) -> Any:
        """Start one task if it is due. Returns the seconds until the next call."""
        LIVENESS.turned(_LOOP)
        return super().tick(*arguments, **options)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Publish the task of an entry. One that cannot be published is not made up for: the next one is near."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:
            cause = error.__cause__ or error.__context__ or error
            if isinstance(cause, OperationalError | OSError):
                self._outage.goes_on(cause, reason=str(cause))
            else:
                log_failure("beat.task_not_published", cause, step=entry.name)
        else:
            self._outage.is_over()

    def _ensure_connected(self) -> Any:
        with LIVENESS.paused(_LOOP):
            retries = self.app.conf.broker_connection_max_retries
            return self.connection.ensure_connection(
                lambda error, _: self._outage.goes_on(error, reason=str(error)), retries
            )


class DailySchedule(BaseSchedule):  # type: ignore[misc]
    """Once on every day of a zone, at a local time. Not a crontab, because commands show the next time by our
    rule."""

    def __init__(self, at: time_of_day, zone: ZoneInfo, nowfun: Callable[[], datetime]) -> None:
        super().__init__(nowfun=nowfun)
        self.at, self.zone = at, zone

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        now: datetime = self.now()
        return next_daily(last_run_at, self.at, self.zone) - now

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether it is due, and after how many seconds to ask again. What was missed is done once."""
        is_due = self.remaining_estimate(last_run_at) <= timedelta()
        remaining = self.remaining_estimate(self.now() if is_due else last_run_at)
        return schedstate(is_due, remaining.total_seconds())


def beat_schedule(zone: ZoneInfo) -> dict[str, Any]:
    """The schedule. Every entry may run twice, late, or sometimes not at all, so two Beats do no harm. `zone`: the
    time zone of the daily entries."""
    # Not Celery's `expires`, which is a moment of Beat's clock that the worker compares with its own clock.
    # `expiration` is a duration that RabbitMQ measures. Redis does not know it: see `tasks.Process.may_sweep`.
    tick = {"queue": topology.MAINTENANCE, "expiration": TICK_EXPIRES_SECONDS}
    minutely = {"queue": topology.MAINTENANCE, "expiration": MINUTE_EXPIRES_SECONDS}
    daily = {"queue": topology.MAINTENANCE, "expiration": DAILY_EXPIRES_SECONDS}
    # One clock for all of them, because Celery sorts the entries by time.
    now = _steady_clock()
    every, each_minute = (
        schedule(span, nowfun=now) for span in (timedelta(seconds=TICK_SECONDS), timedelta(minutes=1))
    )
    tasks = {"partitions": PARTITIONS, "retention": RETENTION, "statistics": STATISTICS}
    return {
        "dispatch-due": {"task": DISPATCH, "schedule": every, "options": tick},
        **{
            step: {"task": task, "schedule": DailySchedule(DAILY_AT[step], zone, now), "options": daily}
            for step, task in tasks.items()
        },
        "heartbeats": {"task": HEARTBEATS, "schedule": each_minute, "options": minutely},
        "late-upkeep": {"task": LATE_UPKEEP, "schedule": each_minute, "options": minutely},
        "recurring": {"task": RECURRING, "schedule": each_minute, "options": minutely},
    }


def _steady_clock() -> Callable[[], datetime]:
    """A clock that starts at the present time and runs steadily: setting the machine's clock does not move it.

    With the machine's clock, a Beat whose clock is set back by an hour would send nothing for an hour.
    """
    began_at, began = datetime.now(UTC), time.monotonic()
    return lambda: began_at + timedelta(seconds=time.monotonic() - began)
