"""`notifier jobs`: long actions that workers carry out, such as `notifier retry --background`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from notifier.cli.actions import SelectionEnding, operator
from notifier.cli.context import wiring
from notifier.cli.options import AsJson, Operand, PageOptions, Why, grouped
from notifier.cli.output import columns, hint, print_json, print_line, print_list, print_pairs, utc

if TYPE_CHECKING:
    from notifier.store.jobs import JobView


class JobEnding(SelectionEnding):
    """For an action that a job carries out, or its dry run."""

    def report(self, result: Any, *, as_json: bool) -> None:
        if not hasattr(result, "state"):
            super().report(result, as_json=as_json)
        elif as_json:
            print_json(result)
        else:
            print_line(f"job {result.id}: {result.total} selected")
            hint(f"next: notifier jobs show {result.id}")


@grouped
def list_(context: typer.Context, *, page: PageOptions, as_json: AsJson = False) -> None:
    """List jobs, newest first: who, what, and their progress."""
    with wiring(context).services() as services:
        found = services.jobs.page(limit=page.limit, before=page.before)
    print_list(
        found,
        columns("id", "begun=at", "operator", "action", "state", "total", "done=changed", "reason"),
        as_json=as_json,
        noun="job",
        empty="that was the last page" if page.before else "there are no jobs",
        next_step="notifier jobs show ID",
        droppable=("reason", "operator"),
        following=page.following(found),
    )


def show(context: typer.Context, job: Operand, as_json: AsJson = False) -> None:
    """Show one job: what it selects, and its progress or how it ended."""
    with wiring(context).services() as services:
        found = services.jobs.find(job)
    _print(found, as_json=as_json)


def stop(context: typer.Context, job: Operand, why: Why = None, as_json: AsJson = False) -> None:
    """Stop a job after its current page. What it has done stays."""
    with wiring(context).services() as services:
        found = services.jobs.stop(job, operator=operator(), reason=why)
    _print(found, as_json=as_json)


def _print(job: JobView, *, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    conditions = job.selection.get("filter") or {"ids": len(job.selection.get("ids", ()))}
    is_stopping = job.stop_asked_at is not None and job.finished_at is None
    print_pairs(
        [
            ("job", job.id),
            ("action", f"{job.action} by {job.operator}{f': {job.reason}' if job.reason else ''}"),
            ("state", "stops after this page" if is_stopping else job.state),
            ("failure", job.failure),
            ("selects", ", ".join(f"{name} {value}" for name, value in conditions.items())),
            ("rate", job.selection.get("rate_per_second")),
            ("looked at", f"{job.matched} of {job.total}"),
            ("changed", str(job.changed)),
            ("expired", job.expired),
            ("left alone", job.skipped),
            ("begun", f"{utc(job.at)} UTC"),
            ("ended", job.finished_at and f"{utc(job.finished_at)} UTC"),
        ]
    )
    if job.finished_at is None:
        hint(f"next: notifier jobs stop {job.id}, to end it early")
