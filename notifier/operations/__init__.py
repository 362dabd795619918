"""What operators do: retry, cancel, reschedule, resolve, replay, purge, and look for what is stuck.

The command line and the API call these; they have no rules of their own. Each action leaves an operator record
(who, when, which, why, and the result) and an event on every notification that it changed. Nothing here makes a
second notification, and nothing requeues a notification that may still be on its way.

Crash points: the record is committed before anything is done, and each page is committed together with its counts.
If a run dies it can be repeated, because what it has changed no longer matches.
"""

from __future__ import annotations

from notifier.domain.errors import WrongSelection
from notifier.operations.notifications import CANCELLABLE, RESCHEDULABLE, RETRYABLE, Operations, Resolution
from notifier.operations.rejected import DeadQueue, Replays
from notifier.operations.results import ActionResult, Progress, Skipped, Stuck
from notifier.store.operator_actions import ActionCounts
from notifier.store.rejected_selection import RejectedSelection
from notifier.store.selection import Selection

__all__ = [
    "CANCELLABLE",
    "RESCHEDULABLE",
    "RETRYABLE",
    "ActionCounts",
    "ActionResult",
    "DeadQueue",
    "Operations",
    "Progress",
    "RejectedSelection",
    "Replays",
    "Resolution",
    "Selection",
    "Skipped",
    "Stuck",
    "WrongSelection",
]
