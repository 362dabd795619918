"""Upkeep: the daily work that keeps the service running. Each step stands alone: one that fails is logged by name,
stops no other, and is tried again an hour later.

Beat starts the steps at night. Every minute it also starts a late one, because it may have been down at night.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from notifier.config.logs import log, log_failure
from notifier.domain.errors import NotifierError, ServiceUnavailable
from notifier.operations.retention import RetentionJob
from notifier.store.schema.partitions import ensure_partitions
from notifier.store.search import Audit
from notifier.store.upkeep import UpkeepRepository

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: A night's retention ends after this: RabbitMQ takes a task that lasts for half an hour for lost. Seconds.
RETENTION_SECONDS = 900.0

#: The steps that Beat asks for together; "retention" and "statistics" have hours of their own.
NIGHTLY = ("partitions", "provider_outcomes", "bounce_counts", "rate_slots", "callbacks", "attachments")

#: What a step did, as JSON takes it.
Work = Callable[[], Any]


class Upkeep:
    """Runs steps by name. Thread-safe; several at once do no harm."""

    def __init__(self, repository: UpkeepRepository, steps: Mapping[str, Work]) -> None:
        self._repository = repository
        self._steps = steps

    def run(self, names: Iterable[str]) -> dict[str, Any]:
        """Run these one after the other. Returns what each did, or `{"failed": why}`."""
        return {name: self._run(name) for name in names}

    def run_late(self) -> dict[str, Any]:
        """Run the first step that is late and that nobody runs. Raises `ServiceUnavailable`."""
        name = self._repository.take_late(list(self._steps))
        return {} if name is None else self.run([name])

    @contextmanager
    def recorded(self, name: str) -> Iterator[None]:
        """Record when this step begins and how it ends, whoever runs it."""
        self._record(lambda: self._repository.begin(name), name)
        try:
            yield
        except Exception as error:
            why = _why(error)
            self._record(lambda: self._repository.fail(name, why), name)
            raise
        self._record(lambda: self._repository.succeed(name), name)

    def _run(self, name: str) -> Any:
        began = time.monotonic()
        try:
            with self.recorded(name):
                done = self._steps[name]()
        except Exception as error:
            log_failure("upkeep.failed", error, step=name, reason=_why(error))
            return {"failed": _why(error)}
        log.info("upkeep.done", step=name, seconds=round(time.monotonic() - began, 3))
        return done

    def _record(self, write: Callable[[], None], name: str) -> None:
        """A step runs even where it cannot be recorded: without a right to the table, for example."""
        try:
            write()
        except ServiceUnavailable as error:
            log.warning("upkeep.not_recorded", step=name, reason=str(error))


def make_partitions(engine: Engine) -> list[str]:
    made = ensure_partitions(engine)
    log.info("partitions.ensured", partitions=made.names, count=made.moved)
    made.raise_failures()
    return made.names


def keep(job: RetentionJob) -> dict[str, Any]:
    """Redact, delete and drop what is old enough; what there is no time for waits for the next night."""
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


def log_statistics(audit: Audit) -> list[dict[str, Any]]:
    """Yesterday's notifications by channel and status."""
    today = audit.now().replace(hour=0, minute=0, second=0, microsecond=0)
    counts = audit.count(since=today - timedelta(days=1), until=today)
    for row in counts:
        log.info("statistics.day", channel=row.channel, status=row.status, count=row.count)
    return [{"channel": row.channel, "status": row.status, "count": row.count} for row in counts]


def _why(error: Exception) -> str:
    """The words of other errors may hold anything, so they are not shown."""
    return str(error) if isinstance(error, NotifierError) else f"{type(error).__name__}, see the worker's log"
