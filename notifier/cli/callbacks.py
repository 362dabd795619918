"""`notifier callbacks`: of what producers were notified, and of what they could not be notified."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from typer import Argument, Option

from notifier.cli.actions import ActionEnding, operator, run_action
from notifier.cli.arguments import read_id
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import (
    ActionOptions,
    AsJson,
    Limit,
    MetricsPort,
    Operand,
    Since,
    Until,
    Why,
    grouped,
    ids_of,
    one_of,
)
from notifier.cli.output import columns, hint, print_json, print_line, print_list, print_pairs, print_table, utc
from notifier.domain.statuses import CallbackFailure, CallbackState, Status

if TYPE_CHECKING:
    from notifier.operations.callbacks import CallbackReplay
    from notifier.store.callbacks import CallbackFilter, CallbackView


@dataclass(frozen=True, slots=True)
class CallbackOptions:
    """Conditions on callbacks, except their state, which `replay` does not take."""

    producer: Annotated[str | None, Option(help="The producer that is notified.")] = None
    endpoint: Annotated[str | None, Option(help="As shown by `notifier callbacks endpoints`.")] = None
    notification: Annotated[
        UUID | None, Option(parser=read_id, metavar="ID", help="Only callbacks of this notification.")
    ] = None
    failure: Annotated[CallbackFailure | None, one_of(CallbackFailure, "FAILURE", "Why the last call failed")] = (
        None
    )
    status: Annotated[Status | None, one_of(Status, "STATUS", "The reported status")] = None
    since: Since = None
    until: Until = None

    def filter(self, state: CallbackState | None = None) -> CallbackFilter:
        from notifier.store.callbacks import CallbackFilter

        return CallbackFilter(state=state, **asdict(self))


def run(
    name: Annotated[str, Option(help="Name of this worker; %h is the host.")] = "",
    metrics_port: MetricsPort = None,
) -> None:
    """Call producers' endpoints, and do nothing else. Any number of these programs can run.

    It needs the database, the broker and the callbacks of notifier.toml, but no provider's secret.
    Stops on SIGTERM, once the calls in progress are recorded.
    """
    from notifier.cli.services import program_settings, serve_metrics, trace_notifications

    settings = program_settings("callbacks", needs_database=True)
    serve_metrics("callbacks", settings, metrics_port)
    trace_notifications("callbacks")
    from notifier.worker.run import run_worker

    # Two workers with one name cannot run on one broker.
    run_worker(settings, (), (), name or f"callbacks-{os.getpid()}@%h", upkeep=False)


@grouped
def list_(
    context: typer.Context,
    *,
    filters: CallbackOptions,
    state: Annotated[
        CallbackState | None, Option(metavar="STATE", help="waiting, given, calling, delivered or parked.")
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List callbacks, newest first."""
    with wiring(context).services() as services:
        views = services.callback_operations.search(filters.filter(state), limit=limit)
    print_callbacks(views, as_json=as_json)


def print_callbacks(views: Sequence[CallbackView], *, as_json: bool = False) -> None:
    """Print a table of callbacks, and what can be done."""
    is_parked = any(view.state == CallbackState.PARKED for view in views)
    print_list(
        views,
        {
            **columns("id", "when=occurred_at", "endpoint"),
            **columns("notification=notification_id", "told=status", "state", "calls=attempt_count"),
            "last": lambda view: _last(view.failure, view.http_status),
            "next": lambda view: utc(view.due_at),
        },
        as_json=as_json,
        noun="callback",
        empty="there are no such callbacks",
        next_step="notifier callbacks show ID, then: notifier callbacks replay" if is_parked else "",
        droppable=("next", "notification", "calls"),
    )


def _last(failure: str | None, http_status: int | None) -> str:
    return " ".join(str(part) for part in (failure, http_status) if part is not None)


def show(context: typer.Context, callback: Operand, as_json: AsJson = False) -> None:
    """Show one callback, and every call for it."""
    with wiring(context).services() as services:
        story = services.callback_operations.show(callback)
    if as_json:
        print_json(story)
        return
    view = story.callback
    print_line(f"{view.id}  {view.state}: {_last(view.failure, view.http_status) or 'nothing is wrong'}", "bold")
    print_pairs(
        [
            ("notification", str(view.notification_id)),
            ("told", view.status + (f", {view.reason}" if view.reason else "")),
            ("endpoint", view.endpoint),
            ("occurred", f"{utc(view.occurred_at)} UTC"),
            ("next call", f"{utc(view.due_at)} UTC" if view.due_at else ""),
        ]
    )
    if story.calls:
        rows = []
        for call in story.calls:
            times = (utc(moment, milliseconds=True) for moment in (call.started_at, call.finished_at))
            result = _last(call.failure, call.http_status) if call.finished_at else "in progress"
            rows.append((call.number, *times, result))
        print_table(("call", "started", "finished", "came to"), rows)
    if view.state == CallbackState.PARKED:
        hint(f"next: notifier callbacks replay {view.id}")


@grouped
def replay(
    context: typer.Context,
    ids: Annotated[list[UUID] | None, ids_of("callbacks")] = None,
    *,
    filters: CallbackOptions,
    options: ActionOptions,
) -> None:
    """Make parked callbacks again, for another 24 hours: by ID, or all that match the conditions.

    By ID, this also replays a delivered callback, with the same ID.
    """
    with wiring(context).services() as services:
        perform = partial(services.callback_operations.replay, filters.filter(), ids or ())
        done = run_action(perform, REPLAY, options, asks=not ids)
    if not options.dry_run and ids and done.changed < len(set(ids)):
        hint(f"{len(set(ids)) - done.changed} left alone: no such callback, or on its way already")
        raise typer.Exit(FAILED)


class ReplayEnding(ActionEnding["CallbackReplay"]):
    def preview(self, result: CallbackReplay) -> None:
        if result.groups:
            rows = [(one.count, one.endpoint, one.failure) for one in result.groups]
            print_table(("count", "endpoint", "failure"), rows)
        super().preview(result)


REPLAY = ReplayEnding("replay", "replayed", "notifier callbacks list")


def endpoints(context: typer.Context, as_json: AsJson = False) -> None:
    """List the endpoints of notifier.toml and those that messages named."""
    with wiring(context).services() as services:
        views = services.callback_operations.endpoints()
    is_suspended = any(view.suspended_at for view in views)
    print_list(
        views,
        {
            **columns("endpoint"),
            "state": lambda view: (
                "suspended" if view.suspended_at else "failing" if view.failing_since else "in use"
            ),
            **columns("delivered=delivered_count", "failed calls=failed_count"),
            "failing since": lambda view: utc(view.failing_since),
            "last": lambda view: _last(view.failure, view.http_status) if view.failing_since else "",
        },
        as_json=as_json,
        noun="endpoint",
        empty="there are none. next: add [callbacks.<producer>] to notifier.toml",
        next_step="once it works again: notifier callbacks resume ENDPOINT" if is_suspended else "",
    )


def resume(
    context: typer.Context,
    endpoint: Annotated[str, Argument(metavar="ENDPOINT", help="As shown by `notifier callbacks endpoints`.")],
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Call a suspended endpoint again, and make the callbacks that were parked because of it."""
    with wiring(context).services() as services:
        done = services.callback_operations.resume(endpoint, operator=operator(), reason=why)
    if not as_json:
        print_line(f"{endpoint} is called again")
    REPLAY.report(done, as_json=as_json)
