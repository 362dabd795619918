"""Actions on notifications: retry, cancel, reschedule, resolve; and what is stuck."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from uuid import UUID

from notifier.domain.errors import InvalidMessage, WrongSelection
from notifier.domain.statuses import Channel, Status, sources_of
from notifier.domain.times import write_time
from notifier.domain.validation import send_at_faults
from notifier.operations.explanations import (
    late_in_words,
    why_not_cancelled,
    why_not_rescheduled,
    why_not_resolved,
    why_not_retried,
)
from notifier.operations.results import (
    ActionResult,
    Progress,
    Skipped,
    Stuck,
    by_id,
    event_text,
    result,
    run_pages,
)
from notifier.store.operator_actions import ActionCounts, Begun, Move, OperatorActions, Seen
from notifier.store.search import Filter
from notifier.store.selection import Selection
from notifier.store.stuck import Late, Lateness

#: Statuses from which an operator may requeue a notification: it has ended. `unknown` is resolved instead.
RETRYABLE: tuple[Status, ...] = tuple(
    status for status in sources_of(Status.RETRYING) if status not in (Status.SENDING, Status.UNKNOWN)
)
#: Statuses from which an operator may cancel a notification.
CANCELLABLE: tuple[Status, ...] = sources_of(Status.CANCELLED)
#: Statuses in which a notification may get another time, if it has not been tried yet.
RESCHEDULABLE: tuple[Status, ...] = (Status.SCHEDULED, *sources_of(Status.SCHEDULED))


@dataclass(frozen=True, slots=True)
class ActionRule:
    """What an action does, and to which notifications."""

    #: The word in each notification's event.
    done: str
    move: Move

    def begun(self, operator: str, reason: str | None, begun: Begun) -> Move:
        """The move for one run."""
        return replace(self.move, detail=event_text(self.done, operator, reason, begun.id), start=begun.at)


RETRY = ActionRule("retried", Move(Status.RETRYING, RETRYABLE))
CANCEL = ActionRule("cancelled", Move(Status.CANCELLED, CANCELLABLE))
#: By the name in the operator record. Only actions that need no further arguments.
ACTIONS: Mapping[str, ActionRule] = {
    "retry": RETRY,
    "cancel": CANCEL,
    "resolve_sent": ActionRule("resolved as sent", Move(Status.SENT, (Status.UNKNOWN,))),
    "resolve_resend": ActionRule("resolved to be sent again", Move(Status.RETRYING, (Status.UNKNOWN,))),
}


class Resolution(StrEnum):
    """What an operator knows about an unknown outcome."""

    SENT = "sent"  #: the provider took it
    RESEND = "resend"  #: it did not, or a second copy is better than none


class Operations:
    """Actions on notifications. Thread-safe. Every method raises `ServiceUnavailable`; pages completed before that
    stay done."""

    def __init__(
        self,
        operator_actions: OperatorActions,
        lateness: Lateness,
        count_suppressed: Callable[[Selection, Sequence[Status]], int] = lambda _selection, _sources: 0,
        paused_channels: Callable[[], Collection[Channel]] = lambda: tuple(Channel),
    ) -> None:
        """`count_suppressed`: how many of these would end as suppressed, for dry runs. `paused_channels`: channels
        without a provider in use."""
        self._operator_actions = operator_actions
        self._lateness = lateness
        self._count_suppressed = count_suppressed
        self._paused_channels = paused_channels

    def retry(
        self,
        selection: Selection,
        *,
        operator: str,
        reason: str | None = None,
        rate_per_second: float | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ActionResult:
        """Requeue notifications that have ended: failed, expired, undelivered or suppressed.

        They are due now, or one after the other at `rate_per_second`. A run that continues where an earlier run of
        the same selection ended keeps the spacing. A notification whose `expires_at` has passed is never sent.

        Raises:
            WrongSelection: nothing is selected, or a status that is not among these.
        """
        check_selection(selection, RETRYABLE, needs_status=True)
        check_rate(rate_per_second)
        if dry_run:
            return self._preview(selection, RETRY.move, why_not_retried)
        rate = {} if rate_per_second is None else {"rate_per_second": rate_per_second}
        begun = self._begin("retry", selection, operator, reason, **rate)
        pause = 0.0 if rate_per_second is None else 1 / rate_per_second
        move = RETRY.begun(operator, reason, begun)
        move = replace(move, start=self._start(selection, begun, pause), pause_seconds=pause)
        return self._run(selection, begun, move, why_not_retried, progress)

    def cancel(
        self,
        selection: Selection,
        *,
        operator: str,
        reason: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ActionResult:
        """Cancel notifications that are not sent yet: scheduled, queued, retrying or unknown.

        A notification that a worker has claimed cannot be cancelled, and is skipped.

        Raises:
            WrongSelection: nothing or everything is selected, or a status that is not among these.
        """
        check_selection(selection, CANCELLABLE)
        if dry_run:
            return self._preview(selection, CANCEL.move, why_not_cancelled)
        begun = self._begin("cancel", selection, operator, reason)
        return self._run(selection, begun, CANCEL.begun(operator, reason, begun), why_not_cancelled, progress)

    def reschedule(
        self,
        selection: Selection,
        send_at: datetime,
        *,
        operator: str,
        reason: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ActionResult:
        """Set another time for notifications that wait for their first call. A time in the past, by at most 31
        days, means now.

        Notifications that a worker has claimed, that were already tried, or that would have expired are skipped.

        Raises:
            InvalidMessage: the contract does not allow this `send_at`.
            WrongSelection: nothing or everything is selected, or a status that is not among these.
        """
        check_selection(selection, RESCHEDULABLE)
        now = self._operator_actions.now()
        faults = send_at_faults(send_at, now)
        if faults:
            raise InvalidMessage(faults)
        move = Move(Status.SCHEDULED, RESCHEDULABLE, send_at=send_at)
        why_not = partial(why_not_rescheduled, send_at)
        if dry_run:
            return self._preview(selection, move, why_not)
        time = write_time(max(send_at, now))
        begun = self._begin("reschedule", selection, operator, reason, send_at=time)
        detail = event_text(f"rescheduled to {time}", operator, reason, begun.id)
        return self._run(selection, begun, replace(move, detail=detail, start=begun.at), why_not, progress)

    def resolve(
        self,
        selection: Selection,
        resolution: Resolution,
        *,
        operator: str,
        reason: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ActionResult:
        """Say what became of notifications with an unknown outcome: they are sent, or due again now.

        Raises:
            WrongSelection: nothing or everything is selected, or another status.
        """
        check_selection(selection, (Status.UNKNOWN,))
        action = f"resolve_{resolution}"
        if dry_run:
            return self._preview(selection, ACTIONS[action].move, why_not_resolved)
        begun = self._begin(action, selection, operator, reason)
        move = ACTIONS[action].begun(operator, reason, begun)
        return self._run(selection, begun, move, why_not_resolved, progress)

    def stuck(self, *, ids: int = 10) -> list[Stuck[Late]]:
        """What is stuck, oldest first, each with the ids of its `ids` oldest notifications."""
        found = self._lateness.late(ids=ids, paused=self._paused_channels())
        return [Stuck(late, *late_in_words(late)) for late in found]

    def _begin(
        self, action: str, selection: Selection, operator: str, reason: str | None, **more: float | str
    ) -> Begun:
        selected = selection.as_dict(self._operator_actions.hash_key) | more
        return self._operator_actions.begin(operator, action, selected, reason)

    def _start(self, selection: Selection, begun: Begun, pause: float) -> datetime:
        last = self._operator_actions.last_due(selection) if pause else None
        return begun.at if last is None else max(begun.at, last + timedelta(seconds=pause))

    def _run(
        self,
        selection: Selection,
        begun: Begun,
        move: Move,
        why_not: Callable[[Seen], str],
        progress: Progress | None,
    ) -> ActionResult:
        skipped: list[Skipped] = []

        def move_page(*, after: UUID | None, tally: ActionCounts) -> tuple[ActionCounts, UUID | None]:
            page = self._operator_actions.move_page(begun.id, selection, move, after=after, tally=tally)
            skipped.extend(Skipped(str(seen.id), why_not(seen)) for seen in page.left)
            return page.tally, page.last

        tally = run_pages(by_id(move_page), progress)
        self._operator_actions.note(begun.id, tally, is_finished=True)
        return result(begun.id, tally, skipped)

    def _preview(
        self,
        selection: Selection,
        move: Move,
        why_not: Callable[[Seen], str],
    ) -> ActionResult:
        groups = self._operator_actions.preview(selection, move.sources, send_at=move.send_at)
        matched = sum(group.count for group in groups)
        is_retry = move.to is Status.RETRYING
        expired = 0 if move.to in (Status.CANCELLED, Status.SENT) else sum(group.expired for group in groups)
        gone = sum(group.gone for group in groups) if is_retry else 0
        left = [
            seen
            for seen in self._operator_actions.look(selection.ids)
            if not move.may_move(seen) or move.is_too_late_for(seen)
        ]
        others = sum(not move.may_move(seen) and not (is_retry and seen.status in move.sources) for seen in left)
        skipped = tuple(Skipped(str(seen.id), why_not(seen)) for seen in left)
        return ActionResult(
            record_id=None,
            matched=matched + others,
            changed=matched - expired - gone,
            expired=expired,
            skipped=skipped,
            groups=tuple(groups),
            suppressed=self._count_suppressed(selection, move.sources) if is_retry and matched else 0,
        )


def check_rate(rate_per_second: float | None) -> None:
    """Raises `WrongSelection` if the rate is not valid."""
    if rate_per_second is not None and not rate_per_second > 0:
        raise WrongSelection("the rate is not above 0: give notifications per second, such as 50")


def check_selection(selection: Selection, sources: Sequence[Status], *, needs_status: bool = False) -> None:
    """Raises `WrongSelection` if it selects nothing, everything, or a status that is not among `sources`."""
    wanted = selection.filter
    if wanted is None:
        if not selection.ids:
            raise WrongSelection("nothing is selected: give ids or conditions")
        return
    if selection.ids:
        raise WrongSelection("ids and conditions are both given: give one of the two")
    if wanted == Filter():
        raise WrongSelection("no condition is given, which would be everything: give at least one")
    known = ", ".join(sources)
    if wanted.status is None and needs_status:
        raise WrongSelection(f"no status is given: give one of {known}")
    if wanted.status is not None and wanted.status not in sources:
        raise WrongSelection(f"it cannot be done to those that are {wanted.status}: give one of {known}")
