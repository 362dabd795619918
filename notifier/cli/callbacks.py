"""`notifier callbacks`: what producers were told, and what they could not be told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from notifier.cli.actions import ActionEnding, operator, run_action
from notifier.cli.arguments import read_id
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import ActionOptions, Limit, Operand, Since, Until, Why, grouped
from notifier.cli.output import (
    AsJson,
    hint,
    print_json,
    print_line,
    print_list,
    print_pairs,
    print_table,
    utc,
    when,
)
from notifier.domain.statuses import CallbackFailure, CallbackState, Status

if TYPE_CHECKING:
    from notifier.operations.callbacks import CallbackOperations, CallbackReplay
    from notifier.operations.results import Stuck
    from notifier.store.callbacks import CallbackFilter, CallbackView, StuckCallbacks

PANEL = "Act"


@dataclass(frozen=True, slots=True)
class CallbackOptions:
    """Conditions on callbacks, but for their state, which a replay does not take."""

    producer: Annotated[str | None, typer.Option(help="The producer that is told.")] = None
    endpoint: Annotated[str | None, typer.Option(help="As shown by `notifier callbacks endpoints`.")] = None
    notification: Annotated[
        UUID | None, typer.Option(parser=read_id, metavar="ID", help="Callbacks of this notification.")
    ] = None
    failure: Annotated[
        CallbackFailure | None, typer.Option(help="Why the last call failed, for example timeout.")
    ] = None
    status: Annotated[Status | None, typer.Option(help="The status that is told, for example failed.")] = None
    since: Since = None
    until: Until = None

    def filter(self, state: CallbackState | None = None) -> CallbackFilter:
        """The conditions as the record takes them."""
        from notifier.store.callbacks import CallbackFilter

        return CallbackFilter(state=state, **{one.name: getattr(self, one.name) for one in fields(self)})


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    callbacks = typer.Typer(
        no_args_is_help=True, help="Status callbacks: what producers are told about their messages."
    )
    callbacks.command("run")(run)
    callbacks.command("list")(list_callbacks)
    callbacks.command("show")(show)
    callbacks.command("replay")(replay)
    callbacks.command("endpoints")(endpoints)
    callbacks.command("resume")(resume)
    app.add_typer(callbacks, name="callbacks", rich_help_panel=PANEL)


def run(
    name: Annotated[str, typer.Option(help="Name of this worker; %h is the host.")] = "",
) -> None:
    """Call producers' endpoints, and do nothing else. Any number of these programs can run.

    It needs the database, the broker and the [callbacks] of notifier.toml, but no provider's secret.
    Stops on SIGTERM, once the calls in progress are recorded.
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


@grouped
def list_callbacks(
    context: typer.Context,
    *,
    filters: CallbackOptions,
    state: Annotated[
        CallbackState | None, typer.Option(help="waiting, given, calling, delivered or parked.")
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List callbacks, newest first. Times are UTC."""
    with callback_operations(context) as found:
        views = found.search(filters.filter(state), limit=limit)
    print_callbacks(views, as_json=as_json)


def print_callbacks(views: Sequence[CallbackView], *, as_json: bool = False) -> None:
    """A table of them, and what can be done."""
    is_parked = any(view.state == CallbackState.PARKED for view in views)
    print_list(
        views,
        {
            "id": lambda view: view.id,
            "when": lambda view: when(view.occurred_at),
            "endpoint": lambda view: view.endpoint,
            "notification": lambda view: view.notification_id,
            "told": lambda view: view.status,
            "state": lambda view: view.state,
            "calls": lambda view: view.attempt_count,
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
                _last(call.failure, call.http_status) if call.finished_at else "in progress",
            )
            for call in story.calls
        ]
        print_table(headers, rows)
    if view.state == CallbackState.PARKED:
        hint(f"next: notifier callbacks replay {view.id}")


@grouped
def replay(
    context: typer.Context,
    ids: Annotated[
        list[UUID] | None,
        typer.Argument(parser=read_id, metavar="ID…", help="IDs of callbacks.", show_default=False),
    ] = None,
    *,
    filters: CallbackOptions,
    options: ActionOptions,
) -> None:
    """Make parked callbacks again, for another 24 hours: by ID, or all that match the conditions.

    A callback that was delivered can be chosen by ID, too: it is made once more, with the same ID.
    """
    with callback_operations(context) as found:
        perform = partial(found.replay, filters.filter(), ids or ())
        done = run_action(perform, ReplayEnding(), options, asks=not ids)
    if not options.dry_run and ids and done.changed < len(set(ids)):
        hint(f"{len(set(ids)) - done.changed} left alone: no such callback, or on its way already")
        raise typer.Exit(FAILED)


class ReplayEnding(ActionEnding["CallbackReplay"]):
    """The report on replayed callbacks."""

    def __init__(self) -> None:
        super().__init__("replay", "replayed", "notifier callbacks list")

    def preview(self, result: CallbackReplay) -> None:
        """Print how many there are of each endpoint and failure."""
        if result.groups:
            rows = [(str(group.count), group.endpoint, group.failure or "") for group in result.groups]
            print_table(("count", "endpoint", "failure"), rows)
        super().preview(result)


def endpoints(context: typer.Context, as_json: AsJson = False) -> None:
    """List the endpoints of notifier.toml and those that messages named. Times are UTC."""
    with callback_operations(context) as found:
        views = found.endpoints()
    is_suspended = any(view.suspended_at for view in views)
    print_list(
        views,
        {
            "endpoint": lambda view: view.endpoint,
            "state": lambda view: (
                "suspended" if view.suspended_at else "failing" if view.failing_since else "in use"
            ),
            "delivered": lambda view: view.delivered_count,
            "failed calls": lambda view: view.failed_count,
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
    endpoint: Annotated[
        str, typer.Argument(metavar="ENDPOINT", help="As shown by `notifier callbacks endpoints`.")
    ],
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Call a suspended endpoint again, and make the callbacks that were parked because of it."""
    with callback_operations(context) as found:
        done = found.resume(endpoint, operator=operator(), reason=why)
    if not as_json:
        print_line(f"{endpoint} is called again")
    ReplayEnding().report(done, as_json=as_json)


def print_stuck(one: Stuck[StuckCallbacks]) -> None:
    """Say why callbacks do not arrive, for `notifier stuck`."""
    print_line(f"{one.late.count} × callbacks of {one.late.endpoint}: {one.why}", "bold")
    print_line(f"  since {utc(one.late.oldest)} UTC")
    hint(f"  next: {one.fix}")
