"""`notifier callbacks`: what producers were told, and what they could not be told."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from notifier.cli.arguments import read_id
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.operating import DryRun, Since, Until, Why, Yes, operator, progress_bar
from notifier.cli.output import (
    AsJson,
    hint,
    is_terminal,
    print_json,
    print_line,
    print_pairs,
    print_table,
    utc,
    when,
)
from notifier.domain.statuses import CallbackFailure, CallbackState, Status

if TYPE_CHECKING:
    from notifier.operations.callbacks import CallbackOperations, CallbackReplay, StuckEndpoint
    from notifier.store.callbacks import CallbackView

PANEL = "Act"

Producer = Annotated[str | None, typer.Option(help="Who is told.")]
Endpoint = Annotated[str | None, typer.Option(help="As `notifier callbacks endpoints` shows it.")]
OfNotification = Annotated[
    UUID | None, typer.Option(parser=read_id, metavar="ID", help="Those of one notification.")
]
Failure = Annotated[CallbackFailure | None, typer.Option(help="Why the last call failed, as timeout.")]
OfStatus = Annotated[Status | None, typer.Option(help="What is told, as failed.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    callbacks = typer.Typer(no_args_is_help=True, help="What producers are told about their messages.")
    callbacks.command("run")(run)
    callbacks.command("list")(list_callbacks)
    callbacks.command("show")(show)
    callbacks.command("replay")(replay)
    callbacks.command("endpoints")(endpoints)
    callbacks.command("resume")(resume)
    app.add_typer(callbacks, name="callbacks", rich_help_panel=PANEL)


def run(
    name: Annotated[str, typer.Option(help="Name among the workers; %h is the host.")] = "",
) -> None:
    """Call producers' endpoints, and do nothing else. Run as many as you like.

    It needs the database, the broker and the [callbacks] of notifier.toml, and reads no provider's secret.
    Stops on SIGTERM when the calls under way are recorded.
    """
    from notifier.cli.services import program_settings

    settings = program_settings("callbacks")
    settings.require("database_url")
    from notifier.worker.run import run_worker

    # Two workers of one name cannot run on one broker.
    run_worker(settings, (), (), name or f"callbacks-{os.getpid()}@%h", upkeep=False)


@contextmanager
def callback_operations(context: typer.Context) -> Iterator[CallbackOperations]:
    """The actions, on the configured database."""
    from notifier.operations.callbacks import CallbackOperations
    from notifier.store.operator_actions import Operating

    with wiring(context).services() as services:
        tables = services.settings.structure.callbacks
        yield CallbackOperations(services.callbacks, Operating(services.engine, services.hash_key), tables)


def list_callbacks(
    context: typer.Context,
    producer: Producer = None,
    endpoint: Endpoint = None,
    notification: OfNotification = None,
    state: Annotated[
        CallbackState | None, typer.Option(help="waiting, given, calling, delivered or parked.")
    ] = None,
    failure: Failure = None,
    status: OfStatus = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at the most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List callbacks, the newest first. Times are UTC."""
    from notifier.store.callbacks import CallbackFilter

    wanted = CallbackFilter(producer, endpoint, notification, state, failure, status, since, until)
    with callback_operations(context) as found:
        views = found.search(wanted, limit=limit)
    if as_json:
        print_json(views)
    elif not views:
        hint("there are no such callbacks")
    else:
        print_callbacks(views)


def print_callbacks(views: Sequence[CallbackView]) -> None:
    """A table of them, and what can be done."""
    headers = ("id", "when", "endpoint", "notification", "told", "state", "calls", "last", "next")
    print_table(headers, [_row(view) for view in views], droppable=("next", "notification", "calls"))
    if any(view.state == CallbackState.PARKED for view in views):
        hint("next: notifier callbacks show ID, then: notifier callbacks replay")


def _row(view: CallbackView) -> tuple[str, ...]:
    return (
        str(view.id),
        when(view.occurred_at),
        view.endpoint,
        str(view.notification_id),
        view.status,
        view.state,
        str(view.attempt_count),
        _last(view.failure, view.http_status),
        utc(view.due_at),
    )


def _last(failure: str | None, http_status: int | None) -> str:
    return " ".join(str(part) for part in (failure, http_status) if part is not None)


def show(
    context: typer.Context,
    callback: Annotated[
        UUID, typer.Argument(parser=read_id, metavar="ID", help="Of a callback.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Show one callback, and every call for it. Times are UTC."""
    with callback_operations(context) as found:
        story = found.show(callback)
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
        headers = ("call", "started", "finished", "came to")
        rows = [
            (
                str(call.number),
                utc(call.started_at, milliseconds=True),
                utc(call.finished_at, milliseconds=True),
                _last(call.failure, call.http_status) if call.finished_at else "under way",
            )
            for call in story.calls
        ]
        print_table(headers, rows)
    if view.state == CallbackState.PARKED:
        hint(f"next: notifier callbacks replay {view.id}")


def replay(
    context: typer.Context,
    ids: Annotated[
        list[UUID] | None,
        typer.Argument(parser=read_id, metavar="ID…", help="Ids of callbacks.", show_default=False),
    ] = None,
    producer: Producer = None,
    endpoint: Endpoint = None,
    notification: OfNotification = None,
    failure: Failure = None,
    status: OfStatus = None,
    since: Since = None,
    until: Until = None,
    why: Why = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Set parked callbacks going again, for another 24 hours: by id, or all that the conditions find.

    By id also one that was delivered: it is told once more, under the same id.
    """
    from notifier.store.callbacks import CallbackFilter

    wanted = CallbackFilter(producer, endpoint, notification, None, failure, status, since, until)
    with callback_operations(context) as found:
        if dry_run or (not ids and not yes and is_terminal(sys.stdin)):
            looked = found.replay(wanted, ids or (), operator=operator(), dry_run=True)
            if dry_run:
                _tell_preview(looked, as_json=as_json)
                return
            if looked.changed > 1:
                _confirm(looked)
        with progress_bar("replayed", None, hidden=as_json) as progress:
            done = found.replay(wanted, ids or (), operator=operator(), reason=why, progress=progress)
    _tell(done, as_json=as_json)
    if ids and done.changed < len(set(ids)):
        hint(f"{len(set(ids)) - done.changed} left alone: no such callback, or on its way already")
        raise typer.Exit(FAILED)


def _confirm(looked: CallbackReplay) -> None:
    _tell_preview(looked, as_json=False)
    if not typer.confirm(f"replay {looked.changed}?", err=True):
        hint("nothing was done")
        raise typer.Exit(FAILED)


def _tell_preview(looked: CallbackReplay, *, as_json: bool) -> None:
    if as_json:
        print_json(looked)
        return
    if looked.groups:
        rows = [(str(group.count), group.endpoint, group.failure or "") for group in looked.groups]
        print_table(("count", "endpoint", "failure"), rows)
    print_line(f"{looked.changed} would be replayed")


def _tell(done: CallbackReplay, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    print_line(f"{done.changed} replayed")
    hint(f"operator record {done.record_id}")
    if done.changed:
        hint("next: notifier callbacks list")


def endpoints(context: typer.Context, as_json: AsJson = False) -> None:
    """List the endpoints: those of notifier.toml, and those that messages named. Times are UTC."""
    with callback_operations(context) as found:
        views = found.endpoints()
    if as_json:
        print_json(views)
        return
    if not views:
        hint("there are none. next: add [callbacks.<producer>] to notifier.toml")
        return
    rows = [
        (
            view.endpoint,
            "suspended" if view.suspended_at else "failing" if view.failing_since else "in use",
            str(view.delivered_count),
            str(view.failed_count),
            utc(view.failing_since),
            _last(view.failure, view.http_status) if view.failing_since else "",
        )
        for view in views
    ]
    headers = ("endpoint", "state", "delivered", "failed calls", "failing since", "last")
    print_table(headers, rows)
    if any(view.suspended_at for view in views):
        hint("next, when it works again: notifier callbacks resume ENDPOINT")


def resume(
    context: typer.Context,
    endpoint: Annotated[
        str, typer.Argument(metavar="ENDPOINT", help="As `notifier callbacks endpoints` shows it.")
    ],
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Call a suspended endpoint again, with everything that was parked because of that."""
    with callback_operations(context) as found:
        done = found.resume(endpoint, operator=operator(), reason=why)
    if not as_json:
        print_line(f"{endpoint} is called again")
    _tell(done, as_json=as_json)


def tell_stuck(one: StuckEndpoint) -> None:
    """Say why callbacks do not arrive, for `notifier stuck`."""
    print_line(f"{one.late.count} × callbacks of {one.late.endpoint}: {one.why}", "bold")
    print_line(f"  since {utc(one.late.oldest)} UTC")
    hint(f"  next: {one.fix}")
