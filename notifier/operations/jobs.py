"""Jobs: retry or cancel many notifications in the background. Workers do it, even if the caller goes away.

The rules are those of `Operations`. `store.jobs` explains how a job survives its workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from threading import Event
from uuid import UUID

from notifier.config.logs import log, log_failure
from notifier.domain.errors import NotifierError, ServiceUnavailable
from notifier.operations.notifications import ACTIONS, CANCEL, RETRY, check_rate, check_selection
from notifier.operations.results import event_text
from notifier.store.jobs import JobPage, JobRepository, JobView
from notifier.store.operator_actions import Move, OperatorActions
from notifier.store.selection import Selection

#: A worker gives a job back after this, so that it can end or do other work. Seconds.
RUN_SECONDS = 60.0
#: A job with a rate plans pages of this many seconds, and plans the next page this long before one is over. So the
#: job runs as long as its retries do, and stopping the job stops the retries. Seconds.
PLANNED_SECONDS, AHEAD_SECONDS = 3.0, 1.5


class Jobs:
    """Creates and runs jobs. Thread-safe. Every method raises `ServiceUnavailable`."""

    def __init__(self, repository: JobRepository, operator_actions: OperatorActions) -> None:
        self._repository = repository
        self._operator_actions = operator_actions

    def retry(
        self,
        selection: Selection,
        *,
        operator: str,
        reason: str | None = None,
        rate_per_second: float | None = None,
    ) -> JobView:
        """`Operations.retry` as a job. A worker takes it within a second or two.

        With a rate, it retries only what was accepted before now, and schedules retries only a few seconds ahead.
        Two such jobs at once do not know of each other, so their rates add up.

        Raises:
            WrongSelection: as for `Operations.retry`.
        """
        check_rate(rate_per_second)
        check_selection(selection, RETRY.move.sources, needs_status=True)
        return self._start("retry", selection, operator, reason, rate_per_second)

    def cancel(self, selection: Selection, *, operator: str, reason: str | None = None) -> JobView:
        """`Operations.cancel` as a job. Raises `WrongSelection`."""
        check_selection(selection, CANCEL.move.sources)
        return self._start("cancel", selection, operator, reason)

    def dispatch(self, publish: Callable[[Sequence[UUID]], None]) -> int:
        """For the sweep: publish a task for each job that waits or whose worker is gone. Returns how many."""
        due = self._repository.dispatch()
        for id_ in due:
            try:
                publish([id_])
            except Exception as error:
                # The job is due again in a moment.
                log.warning("dispatch.jobs_not_published", error=type(error).__name__)
        return len(due)

    def run(self, job: UUID, stop: Event | None = None) -> bool:
        """For workers: take the job if nobody has it, and do pages until it has ended, is ahead of its rate,
        `stop` is set, or the time is over. Returns whether it was taken."""
        lease = self._repository.take(job)
        if lease is None:
            return False
        until = time.monotonic() + RUN_SECONDS
        try:
            while self._repository.work_page(job, lease, _move_of):
                if (stop is not None and stop.is_set()) or time.monotonic() > until:
                    self._repository.give_back(job, lease)
                    return True
        except ServiceUnavailable:
            raise  # another worker continues when the lease ends
        except Exception as error:
            log_failure("job.failed", error, job=str(job))
            is_ours = isinstance(error, NotifierError)
            self._repository.fail(job, lease, str(error) if is_ours else f"{type(error).__name__}, see the log")
            return True
        found = self._repository.find(job)
        if found.finished_at is not None:
            log.info("job.ended", job=str(job), status=found.state, count=found.changed)
        return True

    def find(self, job: UUID) -> JobView:
        """One job. Raises `NotFound`."""
        return self._repository.find(job)

    def page(self, *, limit: int, before: UUID | None = None) -> list[JobView]:
        """Jobs, newest first."""
        return self._repository.page(limit=limit, before=before)

    def stop(self, job: UUID, *, operator: str, reason: str | None = None) -> JobView:
        """Let the job end after the current page. What it has done stays, the rest is left as it was.

        Raises:
            NotFound: there is no such job.
            WrongSelection: it has already ended.
        """
        self._repository.stop(job, operator, reason)
        return self._repository.find(job)

    def _start(
        self,
        action: str,
        selection: Selection,
        operator: str,
        reason: str | None,
        rate_per_second: float | None = None,
    ) -> JobView:
        sources = ACTIONS[action].move.sources
        last = None if rate_per_second is None else self._operator_actions.last_due(selection)
        if rate_per_second is not None and selection.filter is not None and selection.filter.until is None:
            # Notifications that fail while it runs are left for the next job, or it would never end.
            selection = Selection(filter=replace(selection.filter, until=self._operator_actions.now()))
        total = sum(group.count for group in self._operator_actions.preview(selection, sources))
        recorded = selection.as_dict(self._operator_actions.hash_key)
        next_at = None
        if rate_per_second is not None:
            recorded |= {"rate_per_second": rate_per_second}
            next_at = last and last + timedelta(seconds=1 / rate_per_second)
        id_ = self._repository.add(operator, action, recorded, reason, total=total, next_at=next_at)
        return self._repository.find(id_)


def _move_of(page: JobPage) -> Move:
    rule = ACTIONS[page.action]
    rate = page.selection.get("rate_per_second")
    pause = 1 / float(rate) if rate else 0.0
    detail = event_text(rule.done, page.operator, page.reason, page.id)
    # `next_at` is the time of the next retry, `start` that of the first.
    start = page.next_at - timedelta(seconds=pause * page.changed)
    limit = max(1, round(float(rate) * PLANNED_SECONDS)) if rate else None
    return replace(
        rule.move, detail=detail, start=start, pause_seconds=pause, limit=limit, ahead_seconds=AHEAD_SECONDS
    )
