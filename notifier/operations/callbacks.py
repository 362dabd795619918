"""What operators do with status callbacks: search, replay parked ones, resume an endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from notifier.config.callbacks import CallbackTable
from notifier.domain.errors import NotFound, WrongSelection
from notifier.domain.statuses import CallbackFailure
from notifier.operations.results import Progress, Stuck, by_id, run_pages
from notifier.store.callbacks import (
    LATE_SECONDS,
    CallbackFilter,
    CallbackRepository,
    CallbackView,
    CallView,
    EndpointView,
    StuckCallbacks,
)
from notifier.store.operator_actions import ActionCounts, OperatorActions


@dataclass(frozen=True, slots=True)
class CallbackStory:
    """One callback, and the calls for it."""

    callback: CallbackView
    calls: Sequence[CallView]


@dataclass(frozen=True, slots=True)
class ReplayGroup:
    """How many callbacks of an endpoint a replay would make again."""

    endpoint: str
    failure: str | None
    count: int


@dataclass(frozen=True, slots=True)
class CallbackReplay:
    """What a replay did, or would do."""

    #: None for a dry run.
    record_id: UUID | None
    changed: int
    #: Only for a dry run.
    groups: Sequence[ReplayGroup] = ()


class CallbackOperations:
    """Actions on callbacks. Thread-safe. Each change leaves an operator record. Every method raises
    `ServiceUnavailable`."""

    def __init__(
        self,
        repository: CallbackRepository,
        operator_actions: OperatorActions,
        tables: Mapping[str, CallbackTable],
    ) -> None:
        self._repository = repository
        self._operator_actions = operator_actions
        self._tables = tables

    def search(self, wanted: CallbackFilter, *, limit: int, before: UUID | None = None) -> list[CallbackView]:
        """Callbacks that match, newest first."""
        return self._repository.search(wanted, limit=limit, before=before)

    def show(self, callback: UUID) -> CallbackStory:
        """One callback with its calls. Raises `NotFound`."""
        return CallbackStory(*self._repository.show(callback))

    def endpoints(self) -> list[EndpointView]:
        """The state of every endpoint, including those in notifier.toml that were never called."""
        found = {view.endpoint: view for view in self._repository.endpoints()}
        for producer, table in self._tables.items():
            if table.url is not None and producer not in found:
                found[producer] = EndpointView(
                    endpoint=producer,
                    producer=producer,
                    failing_since=None,
                    failures=0,
                    failure=None,
                    http_status=None,
                    suspended_at=None,
                    delivered_count=0,
                    failed_count=0,
                )
        return [found[name] for name in sorted(found)]

    def replay(
        self,
        wanted: CallbackFilter | None,
        ids: Sequence[UUID] = (),
        *,
        operator: str,
        reason: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> CallbackReplay:
        """Try parked callbacks for another 24 hours: those with these ids, or all that the filter finds. By id,
        delivered callbacks are also sent again, under the same id.

        Raises:
            WrongSelection: nothing or everything is selected, or both ids and a filter are given.
        """
        _check(wanted, ids)
        condition = wanted or CallbackFilter()
        if dry_run:
            counts = self._repository.count(condition, ids)
            groups = [ReplayGroup(endpoint, failure, count) for (endpoint, failure), count in counts.items()]
            groups.sort(key=lambda group: (-group.count, group.endpoint))
            return CallbackReplay(None, sum(counts.values()), groups)
        selection = {"ids": [str(value) for value in ids]} if ids else {"filter": condition.as_dict()}
        begun = self._operator_actions.begin(operator, "replay_callbacks", selection, reason)
        page = partial(self._repository.replay_page, condition, ids, begun.id)
        tally = run_pages(by_id(page), progress)
        self._operator_actions.note(begun.id, tally, is_finished=True)
        return CallbackReplay(begun.id, tally.changed)

    def resume(self, endpoint: str, *, operator: str, reason: str | None = None) -> CallbackReplay:
        """Call a suspended endpoint again, with the callbacks parked because of the suspension. Raises
        `NotFound`."""
        suspended = [view.endpoint for view in self._repository.endpoints() if view.suspended_at is not None]
        if endpoint not in suspended:
            known = ", ".join(suspended) or "none"
            raise NotFound(f"the endpoint {endpoint!r} is not suspended; suspended: {known}")
        begun = self._operator_actions.begin(operator, "resume_endpoint", {"endpoint": endpoint}, reason)
        self._repository.resume(endpoint)
        self._operator_actions.note(begun.id, ActionCounts(1, 1), is_finished=True)
        wanted = CallbackFilter(endpoint=endpoint, failure=CallbackFailure.SUSPENDED)
        return self.replay(wanted, operator=operator, reason=reason)

    def stuck(self) -> list[Stuck[StuckCallbacks]]:
        """Endpoints with stuck callbacks, oldest first."""
        return [Stuck(late, *_in_words(late)) for late in self._repository.stuck()]


def _check(wanted: CallbackFilter | None, ids: Sequence[UUID]) -> None:
    has_filter = wanted not in (None, CallbackFilter())
    if ids and has_filter:
        raise WrongSelection("ids and conditions are both given: give one of the two")
    if not ids and not has_filter:
        raise WrongSelection("nothing is selected: give ids, or at least one condition")


def _in_words(late: StuckCallbacks) -> tuple[str, str]:
    if late.cause == "endpoint_suspended":
        last = late.failure or ""
        last += f", HTTP {late.http_status}" if late.http_status else ""
        return (
            f"every call for days has failed (last: {last}), so it is suspended",
            f"when it works again: notifier callbacks resume '{late.endpoint}'",
        )
    return (
        f"due for more than {LATE_SECONDS // 60} minutes, and not called",
        "do Beat and `notifier callbacks run` (or a worker with --callbacks) run? is the endpoint fast enough?",
    )
