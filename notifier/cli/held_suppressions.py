"""Commands on many suppressions: those that a mass alarm holds, and lifting by condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from notifier.cli.actions import SelectionEnding, run_action
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import ActionOptions, PageOptions, Since, Until, grouped
from notifier.cli.output import columns, hint, print_line, print_list

if TYPE_CHECKING:
    from notifier.operations import ActionResult
    from notifier.store.held_suppressions import HeldFilter
    from notifier.store.suppressions import SuppressionFilter

OfProvider = Annotated[str | None, Option(help="Of messages that this provider sent.")]
OfSender = Annotated[str | None, Option(help="Of messages from this sender identity.")]


@dataclass(frozen=True, slots=True)
class HeldOptions:
    provider: OfProvider = None
    sender: OfSender = None
    since: Since = None
    until: Until = None

    def filter(self) -> HeldFilter:
        from notifier.store.held_suppressions import HeldFilter

        return HeldFilter(**asdict(self))


@dataclass(frozen=True, slots=True)
class HeldActionOptions(ActionOptions):
    """Here `--reason` is another name for `--why`."""

    why: Annotated[
        str | None, Option("--why", "--reason", metavar="TEXT", help="Why you do it; kept in the operator record.")
    ] = None


@grouped
def held(
    context: typer.Context,
    *,
    filters: HeldOptions,
    discard: Annotated[bool, Option("--discard", help="Delete them: the bounces were our own fault.")] = False,
    options: HeldActionOptions,
    page: PageOptions,
) -> None:
    """List suppressions that a mass alarm holds back, newest first; or discard them."""
    with wiring(context).services() as services:
        if discard:
            _run(partial(services.held.end, filters.filter(), apply=False), "discard", "discarded", options)
            return
        found = services.held.page(filters.filter(), limit=page.limit, before=page.before)
        stuck = services.held.stuck()
    if stuck is not None and not options.as_json:
        print_line(stuck.why, "bold")
    print_list(
        found,
        columns("held=held_at", "channel", "provider", "sender", "reason", "detail"),
        as_json=options.as_json,
        noun="held suppression",
        empty="no held suppression matches",
        next_step="notifier suppressions apply-held --dry-run, or: notifier suppressions held --discard",
        droppable=("detail",),
        following=page.following(found),
    )


@grouped
def apply_held(context: typer.Context, *, filters: HeldOptions, options: HeldActionOptions) -> None:
    """Suppress the recipients that a mass alarm held back: the bounces were right.

    If the command is interrupted, run it again.
    """
    with wiring(context).services() as services:
        _run(partial(services.held.end, filters.filter(), apply=True), "apply", "suppressed", options)


def lift_all(context: typer.Context, wanted: SuppressionFilter, options: ActionOptions) -> None:
    """`notifier suppressions lift --source`."""
    if wanted.since is None:
        raise typer.BadParameter("say since when, for example 3h", param_hint="--since")
    with wiring(context).services() as services:
        _run(partial(services.held.lift, wanted), "lift", "lifted", options)


def _run(perform: Callable[..., ActionResult], verb: str, done: str, options: ActionOptions) -> None:
    if not options.why and not options.dry_run:
        raise typer.BadParameter("give the reason, or count with --dry-run", param_hint="--why")
    result = run_action(perform, SelectionEnding(verb, done), options)
    if not result.matched:
        hint("nothing matches. next: notifier suppressions held, or: notifier suppressions list")
        raise typer.Exit(FAILED)
    if result.record_id is None:
        hint(f"nothing was done. To {verb}: the same command without --dry-run and with --why")
    elif verb == "lift":
        hint(
            "next: notifier retry ID, for notifications that were suppressed in the meantime and are still wanted"
        )
    else:
        hint("next: notifier suppressions list --since 1h")
