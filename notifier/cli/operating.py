"""`notifier retry`, `cancel`, `resolve` and `stuck`: what operators do about notifications."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from notifier.cli.arguments import read_id, read_past
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.labels import REASONS
from notifier.cli.output import (
    AsJson,
    console,
    hint,
    is_terminal,
    one_line,
    print_json,
    print_line,
    print_table,
    status_style,
    utc,
    warn,
)
from notifier.domain.errors import ServiceUnavailable
from notifier.domain.statuses import Channel, Reason, Status

if TYPE_CHECKING:
    from notifier.operations import ActionCounts, ActionResult, Operations, Selection, Stuck

PANEL = "Act"

#: Skipped ones that are shown to people; `--json` has them all.
SHOWN_SKIPPED = 20
#: Ids of each cause that `stuck` shows to people, and prints as JSON.
SHOWN_IDS, JSON_IDS = 3, 1000

Ids = Annotated[
    list[UUID] | None,
    typer.Argument(parser=read_id, metavar="ID…", help="Ids of notifications.", show_default=False),
]
Why = Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the record.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what would be done.")]
Since = Annotated[
    datetime | None,
    typer.Option(parser=read_past, metavar="TIME", help="2h, 3d (ago), 2026-11-22 or RFC 3339."),
]
Until = Annotated[
    datetime | None, typer.Option(parser=read_past, metavar="TIME", help="Before that; written the same.")
]
Recipient = Annotated[str | None, typer.Option(help="Address or number, exactly as it was sent to.")]
Reference = Annotated[str | None, typer.Option(help="The producer's own reference.")]
Producer = Annotated[str | None, typer.Option(help="The service that sent it.")]
OfChannel = Annotated[Channel | None, typer.Option()]
Because = Annotated[Reason | None, typer.Option(help="Why it is where it is, as provider_unavailable.")]
Template = Annotated[str | None, typer.Option(help="Name of the template.")]
Provider = Annotated[str | None, typer.Option(help="The provider that was tried last.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command(rich_help_panel=PANEL)(retry)
    app.command(rich_help_panel=PANEL)(cancel)
    app.command(rich_help_panel=PANEL)(resolve)
    app.command(rich_help_panel=PANEL)(stuck)


def retry(
    context: typer.Context,
    ids: Ids = None,
    status: Annotated[
        Status | None,
        typer.Option(
            metavar="STATUS", help="failed (unless given), expired, undelivered or suppressed.", show_default=False
        ),
    ] = None,
    reason: Because = None,
    provider: Provider = None,
    template: Template = None,
    recipient: Recipient = None,
    reference: Reference = None,
    producer: Producer = None,
    channel: OfChannel = None,
    since: Since = None,
    until: Until = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="So many a second; default: all at once.")
    ] = None,
    why: Why = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Set notifications going again that have ended: by id, or all that the conditions find.

    The same notification is sent again; its deadline counts anew. What has an expires_at that has passed is never
    sent, and nothing is retried that may still be on its way. If it is interrupted, run it again: it goes on.
    """
    conditions = {
        "status": status,
        "reason": reason,
        "provider": provider,
        "template": template,
        "recipient": recipient,
        "reference": reference,
        "producer": producer,
        "channel": channel,
        "since": since,
        "until": until,
    }
    if status is None and any(value is not None for value in conditions.values()):
        conditions["status"] = Status.FAILED
    selection = selected(ids, conditions)
    with operations(context) as found:
        end = Ending("retried", "retry", as_json=as_json)

        def look() -> ActionResult:
            return found.retry(selection, operator=operator(), rate_per_second=rate, dry_run=True)

        def act(progress: Callable[[ActionCounts], None]) -> ActionResult:
            return found.retry(selection, operator=operator(), reason=why, rate_per_second=rate, progress=progress)

        end.tell(carry_out(look, act, end, asks=not ids and not yes, dry_run=dry_run))


def cancel(
    context: typer.Context,
    ids: Ids = None,
    status: Annotated[
        Status | None,
        typer.Option(
            metavar="STATUS",
            help="scheduled, queued, retrying or unknown; default: any of them.",
            show_default=False,
        ),
    ] = None,
    reason: Because = None,
    provider: Provider = None,
    template: Template = None,
    recipient: Recipient = None,
    reference: Reference = None,
    producer: Producer = None,
    channel: OfChannel = None,
    since: Since = None,
    until: Until = None,
    why: Why = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Stop notifications that are not sent yet: by id, or all that the conditions find. For good.

    One that a worker has in hand cannot be stopped.
    """
    conditions = {
        "status": status,
        "reason": reason,
        "provider": provider,
        "template": template,
        "recipient": recipient,
        "reference": reference,
        "producer": producer,
        "channel": channel,
        "since": since,
        "until": until,
    }
    selection = selected(ids, conditions)
    with operations(context) as found:
        end = Ending("cancelled", "cancel", as_json=as_json)

        def look() -> ActionResult:
            return found.cancel(selection, operator=operator(), dry_run=True)

        def act(progress: Callable[[ActionCounts], None]) -> ActionResult:
            return found.cancel(selection, operator=operator(), reason=why, progress=progress)

        end.tell(carry_out(look, act, end, asks=not ids and not yes, dry_run=dry_run))


def resolve(
    context: typer.Context,
    ids: Annotated[
        list[UUID],
        typer.Argument(parser=read_id, metavar="ID…", help="Ids of notifications.", show_default=False),
    ],
    sent: Annotated[bool, typer.Option("--sent", help="The provider took it.")] = False,
    resend: Annotated[
        bool, typer.Option("--resend", help="It did not, or a second copy is better than none.")
    ] = False,
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Decide about notifications of which nobody can say whether the provider took them."""
    from notifier.operations import Resolution, Selection

    if sent == resend:
        raise typer.BadParameter("say one of the two: --sent or --resend")
    resolution = Resolution.SENT if sent else Resolution.RESEND
    with operations(context) as found:
        end = Ending("resolved", "resolve", as_json=as_json)
        end.tell(found.resolve(Selection(tuple(ids)), resolution, operator=operator(), reason=why))


def stuck(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what is late, and why, and which providers and senders are held back. Exits 1 if anything is.

    What waits for its turn under a limit is shown, and no fault.

    Times are UTC.
    """
    from notifier.cli import callbacks, held_suppressions
    from notifier.cli.providers import steering, tell_circuit

    with operations(context) as found:
        late = found.stuck(ids=JSON_IDS if as_json else SHOWN_IDS)
    with callbacks.callback_operations(context) as told, wiring(context).services() as services:
        untold, held = told.stuck(), services.held.stuck()
    with steering(context) as providers:
        circuits = providers.open_circuits()
    told_of = {(one.channel, one.reason) for one in circuits}
    everything: list[tuple[Any, Callable[[Any], None]]] = [
        *((one, partial(_tell_stuck, told_of=told_of)) for one in late),
        *((one, callbacks.tell_stuck) for one in untold),
        *((one, held_suppressions.tell_stuck) for one in [held] if one),
    ]
    if as_json:
        rows = [{**as_dict(one.late), "why": one.why, "fix": one.fix} for one, _ in everything]
        print_json([*map(as_dict, circuits), *rows])
    elif not everything and not circuits:
        print_line("nothing is stuck")
    for circuit in () if as_json else circuits:
        tell_circuit(circuit)
    for one, tell in () if as_json else everything:
        tell(one)
    if circuits or held or untold or any(one.late.cause != "rate_limited" for one in late):
        raise typer.Exit(FAILED)


def _tell_stuck(one: Stuck, told_of: Collection[tuple[Channel | None, Reason | None]] = ()) -> None:
    """`told_of`: for what, on which channel, a circuit is open, which says already what to do."""
    late = one.late
    print_line(f"{late.count} × {late.channel} {late.lane}: {one.why}", "bold")
    print_line(f"  since {utc(late.oldest)} UTC" + (f"; {one_line(late.detail)}" if late.detail else ""))
    for value in late.ids:
        print_line(f"  {value}")
    if late.count > len(late.ids):
        print_line(f"  and {late.count - len(late.ids)} more")
    cause = str(late.cause)
    if not any(channel in (None, late.channel) and str(reason) == cause for channel, reason in told_of):
        hint(f"  next: {one.fix}")


@contextmanager
def operations(context: typer.Context) -> Iterator[Operations]:
    """The actions, on the configured database."""
    from notifier.operations import Operations
    from notifier.store.operator_actions import Operating
    from notifier.store.stuck import Lateness

    with wiring(context).services() as services:
        yield Operations(Operating(services.engine, services.hash_key), Lateness(services.engine))


def operator() -> str:
    """Who acts: the login name of this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container whose user has no name.
        import os

        return f"uid {os.getuid()}"


def selected(ids: list[UUID] | None, conditions: dict[str, Any]) -> Selection:
    """What the arguments select."""
    from notifier.operations import Selection
    from notifier.store.search import Filter

    is_filter = any(value is not None for value in conditions.values())
    if ids and is_filter:
        raise typer.BadParameter("give ids or conditions, not both")
    if not ids and not is_filter:
        raise typer.BadParameter("say which: ids, or conditions as --status, --reason or --since")
    return Selection(tuple(ids)) if ids else Selection(filter=Filter(**conditions))


def carry_out(
    look: Callable[[], ActionResult],
    act: Callable[[Callable[[ActionCounts], None]], ActionResult],
    end: Ending,
    *,
    asks: bool,
    dry_run: bool,
) -> ActionResult:
    """Look first where somebody wants to know what would happen, then act."""
    if dry_run:
        return look()
    total = None
    if asks and is_terminal(sys.stdin):
        found = look()
        total = found.matched
        if found.changed > 1:
            end.tell_preview(found)
            if not typer.confirm(f"{end.command} {found.changed}?", err=True):
                hint("nothing was done")
                raise typer.Exit(FAILED)
    with progress_bar(end.done, total, hidden=end.as_json) as progress:
        try:
            return act(progress)
        except (KeyboardInterrupt, ServiceUnavailable):
            hint(f"It stopped before its end; the pages until then are {end.done}. Run it again: it goes on.")
            raise


@contextmanager
def progress_bar(verb: str, total: int | None, *, hidden: bool) -> Iterator[Callable[[ActionCounts], None]]:
    """A bar on a terminal, nothing elsewhere. Yields what to call after each page."""
    if hidden or not is_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bar

    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}")]
    if total:
        columns += [BarColumn(), TextColumn("{task.percentage:>3.0f} %")]
    with Bar(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task(verb, total=total)
        yield lambda tally: bar.update(task, description=f"{tally.changed} {verb}", completed=tally.matched)


class Ending:
    """What is said at the end."""

    def __init__(self, done: str, command: str, *, as_json: bool) -> None:
        self.done, self.command, self.as_json = done, command, as_json

    def tell(self, result: ActionResult) -> None:
        """Say what came of it. Exits 1 if one that was named by its id was left alone."""
        if self.as_json:
            print_json(result)
        elif result.record_id is None:
            self.tell_preview(result)
        else:
            print_line(self._counts(result, self.done))
            self._tell_skipped(result)
            hint(f"operator record {result.record_id}")
            self._tell_next(result)
        if result.skipped:
            raise typer.Exit(FAILED)

    def tell_preview(self, result: ActionResult) -> None:
        """Say what would come of it."""
        if result.groups:
            rows = [
                (
                    str(group.count),
                    group.status,
                    group.reason or "",
                    group.provider or "",
                    group.template,
                    str(group.expired or ""),
                    REASONS.get(group.reason or "", ""),
                )
                for group in result.groups
            ]
            styles = {1: [status_style(group.status) for group in result.groups]}
            headers = ("count", "status", "reason", "provider", "template", "time is over", "in words")
            print_table(headers, rows, styles, droppable=("in words", "provider"))
        if result.codes:
            print_table(("count", "first reason"), [(str(code.count), code.code) for code in result.codes])
        self._tell_skipped(result)
        print_line(self._counts(result, f"would be {self.done}"))

    def _counts(self, result: ActionResult, verb: str) -> str:
        parts = [f"{result.changed} {verb}"]
        if result.expired:
            parts.append(f"{result.expired} not, because their time is over (expires_at)")
        others = result.matched - result.changed - result.expired
        if others:
            parts.append(f"{others} left alone")
        return ", ".join(parts)

    def _tell_skipped(self, result: ActionResult) -> None:
        for skipped in result.skipped[:SHOWN_SKIPPED]:
            warn(f"{one_line(skipped.id)}  {one_line(skipped.why)}")
        more = len(result.skipped) - SHOWN_SKIPPED
        if more > 0:
            warn(f"… and {more} more; --json has all of them")

    def _tell_next(self, result: ActionResult) -> None:
        match self.command:
            case "retry" if result.changed:
                hint("next: notifier show ID, or: notifier stuck")
            case "resolve" | "cancel" if result.changed:
                hint("next: notifier show ID")
            case "replay" if result.changed:
                hint("next: notifier rejected list --limit 10: what is still wrong comes back there")


def as_dict(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, unconverted."""
    from dataclasses import fields

    return {field.name: getattr(value, field.name) for field in fields(value)}
