"""Runs actions page by page, and defines their results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from notifier.store.operator_actions import ActionCounts, OperatorActions, SelectionGroup
from notifier.store.rejected import CodeCount

L = TypeVar("L")

#: Called after each page with the counts so far. If it raises, the run ends.
Progress = Callable[[ActionCounts], None]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A notification that was left unchanged, and why."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class EntryCounts:
    """What became of the entries of a batch message."""

    #: Those that were accepted before count as accepted.
    accepted: int
    rejected: int


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What an action did, or would do."""

    #: The id of the operator record; None for a dry run.
    record_id: UUID | None
    #: How many were looked at.
    matched: int
    #: How many were moved, published or deleted.
    changed: int
    #: How many were left alone because their `expires_at` has passed.
    expired: int
    #: Only of those that were named by id.
    skipped: tuple[Skipped, ...] = ()
    #: Only for a dry run over notifications.
    groups: tuple[SelectionGroup, ...] = ()
    #: Only for a dry run over rejected messages.
    codes: tuple[CodeCount, ...] = ()
    #: Only for a dry run of a retry: how many of `changed` would end as suppressed.
    suppressed: int = 0
    #: Only for an edited message of which some entries were rejected.
    entries: EntryCounts | None = None


@dataclass(frozen=True, slots=True)
class Stuck(Generic[L]):
    """What is late or held: why, and what to do."""

    late: L
    why: str
    fix: str


def result(record: UUID, tally: ActionCounts, skipped: Sequence[Skipped]) -> ActionResult:
    return ActionResult(record, tally.matched, tally.changed, tally.expired, tuple(skipped))


def event_text(verb: str, operator: str, reason: str | None, record: UUID) -> str:
    return f"{verb} by {operator}{f': {reason}' if reason else ''} (operator record {record})"


@contextmanager
def recorded(
    operator_actions: OperatorActions, operator: str, action: str, selection: Mapping[str, Any]
) -> Iterator[Callable[..., None]]:
    """An operator record for a long action, begun before it. Call the yielded function to note counts and results;
    each call replaces the earlier ones. The record stays open if the action fails or is interrupted."""
    record = operator_actions.begin(operator, action, selection, None).id
    noted: tuple[ActionCounts, dict[str, Any]] = ActionCounts(), {}

    def note(counts: ActionCounts, **more: Any) -> None:
        nonlocal noted
        noted = counts, more
        operator_actions.note(record, counts, is_finished=False, **more)

    yield note
    operator_actions.note(record, noted[0], is_finished=True, **noted[1])


def run_pages(act: Callable[[ActionCounts], ActionCounts | None], progress: Progress | None) -> ActionCounts:
    """Act page by page. `act` receives the counts so far and adds its page's; None: the page was empty."""
    tally = ActionCounts()
    while (found := act(tally)) is not None:
        tally = found
        if progress:
            progress(tally)
    return tally


def by_id(act: Callable[..., tuple[ActionCounts, UUID | None]]) -> Callable[[ActionCounts], ActionCounts | None]:
    """For `run_pages`: each page begins `after` the id at which the previous page ended."""
    last: UUID | None = None

    def next_page(tally: ActionCounts) -> ActionCounts | None:
        nonlocal last
        tally, last = act(after=last, tally=tally)
        return None if last is None else tally

    return next_page
