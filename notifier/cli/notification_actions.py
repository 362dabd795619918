"""`notifier retry`, `cancel`, `reschedule` and `resolve`: what operators do with notifications."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from typer import Option

from notifier.cli.actions import SelectionEnding, operator, run_action
from notifier.cli.context import wiring
from notifier.cli.jobs import JobEnding
from notifier.cli.options import (
    ActionOptions,
    AsJson,
    DryRun,
    FilterOptions,
    Ids,
    OfReason,
    Why,
    future,
    grouped,
    ids_of,
)
from notifier.domain.statuses import Reason, Status

if TYPE_CHECKING:
    from notifier.operations import ActionResult, Progress, Selection
    from notifier.store.jobs import JobView

Background = Annotated[
    bool, Option("--background", help="Let the workers do it, as a job that outlives this command.")
]


@grouped
def retry(
    context: typer.Context,
    ids: Ids = None,
    *,
    status: Annotated[
        Status | None, Option(metavar="STATUS", help="failed (default), expired, undelivered, suppressed.")
    ] = None,
    reason: OfReason = None,
    filters: FilterOptions,
    rate: Annotated[
        float | None, Option(min=0.001, metavar="N", help="Maximum per second; default: no limit.")
    ] = None,
    background: Background = False,
    options: ActionOptions,
) -> None:
    """Retry notifications that ended without success: by ID, or all that match the conditions.

    Each keeps its ID and gets a new deadline. Nothing is sent after its expires_at, and nothing is retried that
    may still be on its way. If the command is interrupted, run it again.
    """
    if status is None and not (reason is None and filters.is_empty()):
        status = Status.FAILED
    selection = _selection(ids, filters, status, reason)
    with wiring(context).services() as services:
        perform = partial(services.operations.retry, selection, rate_per_second=rate)
        as_job = partial(services.jobs.retry, selection, rate_per_second=rate) if background else None
        ending = JobEnding("retry", "retried", "notifier show ID, or: notifier stuck")
        run_action(_perform(perform, as_job), ending, options, asks=not ids)


@grouped
def cancel(
    context: typer.Context,
    ids: Ids = None,
    *,
    status: Annotated[
        Status | None,
        Option(metavar="STATUS", help="scheduled, queued, retrying or unknown; default: all of them."),
    ] = None,
    reason: OfReason = None,
    filters: FilterOptions,
    background: Background = False,
    options: ActionOptions,
) -> None:
    """Stop unsent notifications for good: by ID, or all that match the conditions.

    A notification that a worker is sending cannot be stopped.
    """
    selection = _selection(ids, filters, status, reason)
    with wiring(context).services() as services:
        as_job = partial(services.jobs.cancel, selection) if background else None
        ending = JobEnding("cancel", "cancelled", "notifier show ID")
        run_action(_perform(partial(services.operations.cancel, selection), as_job), ending, options, asks=not ids)


@grouped
def reschedule(
    context: typer.Context,
    ids: Ids = None,
    *,
    at: Annotated[datetime, future("The new time: 2h (from now), 2026-11-22 or RFC 3339.")],
    status: Annotated[
        Status | None, Option(metavar="STATUS", help="scheduled or queued; default: both of them.")
    ] = None,
    reason: OfReason = None,
    filters: FilterOptions,
    options: ActionOptions,
) -> None:
    """Give notifications that wait for their first call another time: by ID, or all that match the conditions.

    A time that has passed, by at most 31 days, means now. A notification that a worker is sending, or
    has tried, keeps its time.
    """
    selection = _selection(ids, filters, status, reason)
    with wiring(context).services() as services:
        ending = SelectionEnding("reschedule", "rescheduled", "notifier show ID")
        run_action(partial(services.operations.reschedule, selection, at), ending, options, asks=not ids)


def resolve(
    context: typer.Context,
    ids: Annotated[list[UUID], ids_of("notifications")],
    sent: Annotated[bool, Option("--sent", help="The provider accepted it.")] = False,
    resend: Annotated[
        bool, Option("--resend", help="The provider did not, or two copies are better than none.")
    ] = False,
    why: Why = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Decide about notifications that are unknown: they may or may not have been sent."""
    from notifier.operations import Resolution, Selection

    if sent == resend:
        raise typer.BadParameter("give one of the two: --sent or --resend")
    resolution = Resolution.SENT if sent else Resolution.RESEND
    with wiring(context).services() as services:
        result = services.operations.resolve(
            Selection(tuple(ids)), resolution, operator=operator(), reason=why, dry_run=dry_run
        )
        SelectionEnding("resolve", "resolved", "notifier show ID").report(result, as_json=as_json)


def _perform(now: Callable[..., ActionResult], as_job: Callable[..., JobView] | None) -> Callable[..., Any]:
    """For `run_action`: the action, or a job that carries it out. A dry run is never a job."""

    def perform(*, dry_run: bool = False, progress: Progress | None = None, **named: Any) -> Any:
        if as_job is None or dry_run:
            return now(dry_run=dry_run, progress=progress, **named)
        return as_job(**named)

    return perform


def _selection(
    ids: list[UUID] | None, filters: FilterOptions, status: Status | None, reason: Reason | None
) -> Selection:
    from notifier.operations import Selection

    has_conditions = not (status is None and reason is None and filters.is_empty())
    if ids and has_conditions:
        raise typer.BadParameter("give IDs or conditions, not both")
    if not ids and not has_conditions:
        raise typer.BadParameter(
            "choose notifications: give IDs, or conditions such as --status, --reason or --since"
        )
    return Selection(tuple(ids)) if ids else Selection(filter=filters.filter(status=status, reason=reason))
