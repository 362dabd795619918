"""What every action gives back, and how it says no."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from notifier.store.operator_actions import ActionCounts, SelectionGroup
from notifier.store.rejected import CodeCount

#: Called after each page with the counts up to there. What it raises ends the run.
Progress = Callable[[ActionCounts], None]


@dataclass(frozen=True, slots=True)
class Skipped:
    """One that was left alone, and why, in words."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What came of an action."""

    #: The operator's record; None: a dry run wrote nothing.
    record_id: UUID | None
    #: Looked at.
    matched: int
    #: Moved, published or deleted; in a dry run, that would be.
    changed: int
    #: Left alone because their `expires_at` has passed.
    expired: int
    #: Of those that were named by id.
    skipped: tuple[Skipped, ...] = ()
    #: Of a dry run over notifications.
    groups: tuple[SelectionGroup, ...] = ()
    #: Of a dry run over rejected messages.
    codes: tuple[CodeCount, ...] = ()


def result(record: UUID, tally: ActionCounts, skipped: Sequence[Skipped]) -> ActionResult:
    return ActionResult(record, tally.matched, tally.changed, tally.expired, tuple(skipped))
