"""Upkeep: the daily work that keeps the service running. Steps are independent: one that fails is logged by name,
stops no other, and is tried again an hour later.

Beat starts the steps at night. Every minute it also starts a step that is late, because Beat may have been down at
night, or one that an operator asked for.

Crash points: a step that an operator asks for or runs is recorded first, and stays due until a run begins. If a
run dies, the step is late and is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from datetime import time as time_of_day
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from notifier.config.logs import log, log_failure
from notifier.domain.errors import NotFound, NotifierError, ServiceUnavailable
from notifier.domain.local_days import next_daily
from notifier.operations.retention import RetentionJob
from notifier.operations.statistics import Statistics
from notifier.store.daily_statistics import StatisticsKey
from notifier.store.operator_actions import ActionCounts, OperatorActions
from notifier.store.schema.partitions import ensure_partitions
from notifier.store.upkeep import AGAIN_HOURS, UpkeepRepository, UpkeepState

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: A night's retention ends after this: RabbitMQ takes a task that lasts half an hour for lost. Seconds.
RETENTION_SECONDS = 900.0

#: The steps that Beat starts together; "retention" has an hour of its own. "report" exists if somebody receives
#: it.
AFTER_MIDNIGHT = ("statistics", "report")
NIGHTLY = (
    "partitions",
    "provider_outcomes",
    "bounce_counts",
    "rate_slots",
    "minute_counts",
    "callbacks",
    "attachments",
)

#: Step → when Beat starts it, in NOTIFIER_TIMEZONE. Retention comes after the partitions, and away from reports at
#: midnight.
DAILY_AT: Mapping[str, time_of_day] = {
    **dict.fromkeys(NIGHTLY, time_of_day(3, 7)),
    "retention": time_of_day(3, 37),
    **dict.fromkeys(AFTER_MIDNIGHT, time_of_day(0, 5)),
}

#: Returns what the step did, in a form that JSON can hold.
Work = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class ScheduledStep:
    """When a step runs, and how its last runs ended, whoever started them."""

    name: str
    #: "every day at 03:07 Europe/Berlin"
    when: str
    #: If Beat and a worker are running then.
    next_run_at: datetime
    last_success_at: datetime | None
    last_failure_at: datetime | None
    #: Why the last run failed.
    failure: str | None
    #: It has failed since its last success, or has had no success for a day.
    is_late: bool
    #: An operator asked for it; it begins within a minute.
    is_asked: bool = False


class Upkeep:
    """Runs steps by name. Thread-safe; several runs at once do no harm."""

    def __init__(
        self, repository: UpkeepRepository, steps: Mapping[str, Work], operator_actions: OperatorActions
    ) -> None:
        self._repository = repository
        self._steps = steps
        self._operator_actions = operator_actions

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the steps."""
        return tuple(self._steps)

    def run(self, names: Iterable[str]) -> dict[str, Any]:
        """Run those of these steps that exist, one after the other. Returns what each did, or `{"failed":
        why}`."""
        return {name: self._run(name) for name in names if name in self._steps}

    def schedule(self, zone: ZoneInfo) -> list[ScheduledStep]:
        """Every step, in the order of their times. `zone` is NOTIFIER_TIMEZONE."""
        states = {state.step: state for state in self._repository.states()}
        now = self._repository.now()
        return [
            _scheduled(name, DAILY_AT[name], zone, states.get(name), now)
            for name in sorted(self._steps, key=DAILY_AT.__getitem__)
        ]

    def ask(self, name: str, *, operator: str, reason: str | None = None) -> None:
        """Have a worker run the step within a minute. Raises `NotFound` or `ServiceUnavailable`."""
        with self._by(operator, name, reason):
            self._repository.ask(name)

    def run_by_hand(self, name: str, *, operator: str, reason: str | None = None) -> Any:
        """Run the step in this process and return what it did. Raises `NotFound`, or what the step raises."""
        with self._by(operator, name, reason):
            return self.run_one(name)

    def run_one(self, name: str) -> Any:
        """Run the step and return what it did. Raises `NotFound`, or what the step raises."""
        self._check(name)
        with self.recorded(name):
            return self._steps[name]()

    def run_late(self) -> dict[str, Any]:
        """Run the first step that is late and that nobody is running. Raises `ServiceUnavailable`."""
        name = self._repository.take_late(list(self._steps))
        return {} if name is None else self.run([name])

    @contextmanager
    def recorded(self, name: str) -> Iterator[None]:
        """Record when this step begins and how it ends, whoever runs it."""
        self._record(lambda: self._repository.begin(name), name)
        try:
            yield
        except Exception as error:
            why = why_failed(error)
            self._record(lambda: self._repository.fail(name, why), name)
            raise
        self._record(lambda: self._repository.succeed(name), name)

    @contextmanager
    def _by(self, operator: str, name: str, reason: str | None) -> Iterator[None]:
        """The operator record. It stays open if the action fails."""
        self._check(name)
        begun = self._operator_actions.begin(operator, "run_step", {"step": name}, reason)
        yield
        self._operator_actions.note(begun.id, ActionCounts(1, 1), is_finished=True)

    def _check(self, name: str) -> None:
        if name not in self._steps:
            raise NotFound(f"there is no step {name}: use one of {', '.join(self._steps)}")

    def _run(self, name: str) -> Any:
        began = time.monotonic()
        try:
            done = self.run_one(name)
        except Exception as error:
            log_failure("upkeep.failed", error, step=name, reason=why_failed(error))
            return {"failed": why_failed(error)}
        log.info("upkeep.done", step=name, seconds=round(time.monotonic() - began, 3))
        return done

    def _record(self, write: Callable[[], None], name: str) -> None:
        """Write a record. A step runs even if it cannot be recorded, for example without rights on the table."""
        try:
            write()
        except ServiceUnavailable as error:
            log.warning("upkeep.not_recorded", step=name, reason=str(error))


def _scheduled(
    name: str, at: time_of_day, zone: ZoneInfo, state: UpkeepState | None, now: datetime
) -> ScheduledStep:
    when = f"every day at {at:%H:%M} {zone.key}"
    if state is None:
        # Beat starts it as a late one.
        return ScheduledStep(name, when, now, None, None, None, is_late=False)
    next_run_at = next_daily(now, at, zone)
    if state.is_late:
        next_run_at = min(next_run_at, max(now, state.started_at + timedelta(hours=AGAIN_HOURS)))
    if state.is_asked:
        next_run_at = now
    return ScheduledStep(
        name,
        when,
        next_run_at,
        state.last_success_at,
        state.last_failure_at,
        state.failure,
        is_late=state.is_late or state.has_failed,
        is_asked=state.is_asked,
    )


def make_partitions(engine: Engine) -> list[str]:
    made = ensure_partitions(engine)
    log.info("partitions.ensured", partitions=made.names, count=made.moved)
    made.raise_failures()
    return made.names


def keep(job: RetentionJob) -> dict[str, Any]:
    """Redact, delete and drop what is old enough. What is left when the time is over waits for the next night."""
    kept = job.run(seconds=RETENTION_SECONDS)
    log.info(
        "retention.done",
        redacted=sum(kept.redacted.values()),
        deleted=sum(kept.deleted.values()) + sum(kept.rejected.values()),
        wiped=kept.wiped,
        partitions=kept.dropped,
    )
    for reason, names in (("not_ended", kept.held), ("in_use", kept.in_use)):
        for name in names:
            log.warning("retention.month_stays", partitions=[name], reason=reason)
    return asdict(kept)


def log_statistics(statistics: Statistics) -> list[dict[str, Any]]:
    """Count recent days. Returns yesterday's notifications by channel and status."""
    statistics.count_recent_days()
    today = statistics.today()
    by = (StatisticsKey.CHANNEL, StatisticsKey.STATUS)
    counts = [
        {**dict(zip(map(str, by), row.values, strict=True)), "count": row.count}
        for row in statistics.report(today - timedelta(days=1), today, by).rows
    ]
    for count in counts:
        log.info("statistics.day", **count)
    return counts


def why_failed(error: Exception) -> str:
    """Why a step failed. The texts of unknown errors may hold anything, so they are not shown."""
    return str(error) if isinstance(error, NotifierError) else f"{type(error).__name__}, see the worker's log"
