"""Suppressions in bulk: what a mass alarm held, and what is lifted by condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.operating import (
    DryRun,
    Ending,
    Since,
    Until,
    Yes,
    carry_out,
    operator,
)
from notifier.cli.output import AsJson, hint, print_json, print_line, print_table, utc, when
from notifier.cli.search import Before, Limit

if TYPE_CHECKING:
    from notifier.operations import ActionCounts, ActionResult
    from notifier.operations.held_suppressions import HeldSuppressions, StuckHolding
    from notifier.store.held_suppressions import HeldFilter
    from notifier.store.suppressions import SuppressionFilter

OfProvider = Annotated[str | None, typer.Option(help="Of messages that this provider sent.")]
OfSender = Annotated[str | None, typer.Option(help="Of messages from this sender identity.")]
Reason = Annotated[str | None, typer.Option("--why", "--reason", metavar="TEXT", help="Why; kept in the record.")]


def add_to_suppressions(suppressions: typer.Typer) -> None:
    """Add these to the family."""
    suppressions.command("held")(held)
    suppressions.command("apply-held")(apply_held)


@contextmanager
def _held(context: typer.Context) -> Iterator[HeldSuppressions]:
    with wiring(context).services() as services:
        yield services.held


def held(
    context: typer.Context,
    provider: OfProvider = None,
    sender: OfSender = None,
    since: Since = None,
    until: Until = None,
    discard: Annotated[bool, typer.Option("--discard", help="Forget them: the bounces were our fault.")] = False,
    why: Reason = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    limit: Limit = 50,
    before: Before = None,
    as_json: AsJson = False,
) -> None:
    """List suppressions that a mass alarm holds back, newest first, as hashes; or discard them.

    Times are UTC.
    """
    from notifier.store.held_suppressions import HeldFilter

    wanted = HeldFilter(provider, sender, since, until)
    if discard:
        end = Ending("discarded", "discard", as_json=as_json)
        _end(context, wanted, end, why, dry_run=dry_run, yes=yes, apply=False)
        return
    with _held(context) as operations:
        found, stuck = operations.page(wanted, limit=limit, before=before), operations.stuck()
    if as_json:
        print_json(found)
        return
    if stuck is not None:
        print_line(stuck.why, "bold")
    if not found:
        hint("nothing is held like that")
        return
    rows = [
        (when(one.held_at), one.channel, one.provider or "", one.sender or "", one.reason, one.detail or "")
        for one in found
    ]
    print_table(("held", "channel", "provider", "sender", "reason", "detail"), rows, droppable=("detail",))
    more = f"the next page: the same with --before {found[-1].id}\n" if len(found) == limit else ""
    hint(f"{more}next: notifier suppressions apply-held --dry-run, or: notifier suppressions held --discard")


def apply_held(
    context: typer.Context,
    provider: OfProvider = None,
    sender: OfSender = None,
    since: Since = None,
    until: Until = None,
    why: Reason = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Suppress those whom a mass alarm held back: the bounces were right.

    If it is interrupted, run it again: it goes on.
    """
    from notifier.store.held_suppressions import HeldFilter

    end = Ending("suppressed", "apply", as_json=as_json)
    wanted = HeldFilter(provider, sender, since, until)
    _end(context, wanted, end, why, dry_run=dry_run, yes=yes, apply=True)


def _end(
    context: typer.Context,
    wanted: HeldFilter,
    end: Ending,
    why: str | None,
    *,
    dry_run: bool,
    yes: bool,
    apply: bool,
) -> None:
    if not why and not dry_run:
        raise typer.BadParameter("say why, or only count with --dry-run", param_hint="--why")
    with _held(context) as operations:
        run = operations.apply if apply else operations.discard

        def look() -> ActionResult:
            return run(wanted, operator=operator(), dry_run=True)

        def act(progress: Callable[[ActionCounts], None]) -> ActionResult:
            return run(wanted, operator=operator(), reason=why, progress=progress)

        _tell(carry_out(look, act, end, asks=not yes, dry_run=dry_run), end)


def lift_all(
    context: typer.Context,
    wanted: SuppressionFilter,
    why: str | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """`notifier suppressions lift --source`."""
    if wanted.since is None:
        raise typer.BadParameter("say since when, as 3h", param_hint="--since")
    if not why and not dry_run:
        raise typer.BadParameter("say why, or only count with --dry-run", param_hint="--why")
    end = Ending("lifted", "lift", as_json=as_json)
    with _held(context) as operations:

        def look() -> ActionResult:
            return operations.lift(wanted, operator=operator(), dry_run=True)

        def act(progress: Callable[[ActionCounts], None]) -> ActionResult:
            return operations.lift(wanted, operator=operator(), reason=why, progress=progress)

        _tell(carry_out(look, act, end, asks=not yes, dry_run=dry_run), end)


def _tell(result: ActionResult, end: Ending) -> None:
    end.tell(result)
    if not result.matched:
        hint("there was none like that. next: notifier suppressions held, or: notifier suppressions list")
        raise typer.Exit(FAILED)
    if result.record_id is None:
        hint(f"nothing was done. To do it: the same without --dry-run, and with --why; it is {end.command}")
    elif end.command == "lift":
        hint("next: notifier retry ID, for what was suppressed meanwhile and is still wanted")
    else:
        hint("next: notifier suppressions list --since 1h")


def tell_stuck(stuck: StuckHolding) -> None:
    """For `notifier stuck`."""
    print_line(stuck.why, "bold")
    for alarm in stuck.late.alarms:
        print_line(f"  {alarm.scope}: since {utc(alarm.since)} UTC, until {utc(alarm.until)} at least")
    hint(f"  next: {stuck.fix}")
