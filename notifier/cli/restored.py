"""`notifier db after-restore`: holds what was on its way in a restored backup, and releases it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from notifier.cli.actions import ActionEnding, run_action
from notifier.cli.context import wiring
from notifier.cli.options import ActionOptions, FilterOptions, Ids, grouped
from notifier.cli.output import hint, print_line, print_table, utc

if TYPE_CHECKING:
    from notifier.operations.restored import HoldResult, ReleaseResult, Restored
    from notifier.store.restored import HeldGroup


@grouped
def after_restore(
    context: typer.Context,
    ids: Ids = None,
    *,
    release: Annotated[
        bool, Option("--release", help="Send held notifications: by ID, conditions or --all.")
    ] = False,
    everything: Annotated[bool, Option("--all", help="With --release: all held notifications.")] = False,
    nothing_lost: Annotated[
        bool,
        Option(
            "--nothing-lost", help="Hold nothing: for pg_upgrade, or a failover that lost nothing. Needs --why."
        ),
    ] = False,
    filters: FilterOptions,
    options: ActionOptions,
) -> None:
    """After a restore, hold the notifications that were on their way in the backup, so that programs can go on.

    They may have been sent since. They become unknown, with the reason restored, until you release (--release),
    resolve or cancel them; due callbacks are parked. If the command is interrupted, run it again.
    """
    if (ids or everything or not filters.is_empty()) and not release:
        raise typer.BadParameter("IDs, conditions and --all go with --release: without it everything is held")
    if release and nothing_lost:
        raise typer.BadParameter("give one of the two: --release or --nothing-lost")
    if nothing_lost and not options.why:
        raise typer.BadParameter("say why nothing was lost: --why")
    with wiring(context).services() as services:
        if release:
            perform = partial(services.restored.release, filters.filter(), ids or (), everything=everything)
            ending = ReleaseEnding("release", "released", "notifier stuck", asks_from=0)
            run_action(perform, ending, options, asks=not ids)
        elif nothing_lost:
            run_action(partial(_accept, services.restored), AcceptEnding("hold", "held", asks_from=0), options)
        else:
            run_action(services.restored.hold, HoldEnding("hold", "held", asks_from=0), options)


def _accept(
    found: Restored, *, operator: str, reason: str | None = None, dry_run: bool = False, progress: object = None
) -> HoldResult:
    """Hold nothing. A dry run shows what would have been held."""
    del progress  # it is a single statement
    return (
        found.hold(operator=operator, dry_run=True)
        if dry_run
        else found.accept(operator=operator, reason=reason or "")
    )


class HoldEnding(ActionEnding["HoldResult"]):
    def count(self, result: HoldResult) -> int:
        return result.held

    def question(self, result: HoldResult) -> str:
        return f"hold {result.held} notifications and {result.callbacks} callbacks?"

    def preview(self, result: HoldResult) -> None:
        _print_differences(result)
        _print_groups(result.groups)
        print_line(f"would be held: {result.held} notifications, {result.callbacks} callbacks")

    def outcome(self, result: HoldResult) -> None:
        print_line(
            f"held: {result.held} notifications, {result.callbacks} callbacks; programs go on within seconds"
        )

    def advise(self, result: HoldResult) -> None:
        if result.held:
            hint(
                "next: notifier search --reason restored; then notifier db after-restore --release with conditions"
            )
        if result.callbacks:
            hint("callbacks: notifier callbacks replay --failure restored")
        if result.recurring:
            hint(f"recurring notifications paused: {result.recurring}. next: notifier recurring list, then resume")


class AcceptEnding(HoldEnding):
    """For a database in which nothing was lost, so nothing is held."""

    def question(self, result: HoldResult) -> str:
        return f"hold nothing, and go on with {result.held} notifications that are on their way?"

    def preview(self, result: HoldResult) -> None:
        _print_differences(result)
        print_line(f"nothing would be held, and {result.held} notifications would go on")

    def outcome(self, result: HoldResult) -> None:
        _print_differences(result)
        print_line("nothing is held; programs go on within seconds")

    def advise(self, result: HoldResult) -> None:
        pass


class ReleaseEnding(ActionEnding["ReleaseResult"]):
    def count(self, result: ReleaseResult) -> int:
        return result.released

    def has_failed(self, result: ReleaseResult) -> bool:
        """Whether an item that was named by its id was skipped."""
        return result.record_id is not None and bool(result.skipped)

    def advise(self, result: ReleaseResult) -> None:
        hint(f"next: {self.next_step}")

    def preview(self, result: ReleaseResult) -> None:
        _print_released(result, "would be ")

    def outcome(self, result: ReleaseResult) -> None:
        _print_released(result, "")


def _print_differences(result: HoldResult) -> None:
    for difference in result.differences:
        print_line(f"another database: {difference}")
    if not result.differences:
        print_line("as far as can be told, the database is the same")


def _print_released(result: ReleaseResult, would_be: str) -> None:
    _print_groups(result.groups)
    parts = [f"{result.released} {would_be}released"]
    if result.expired:
        parts.append(f"{result.expired} {would_be or 'are '}expired")
    if result.skipped:
        parts.append(f"{result.skipped} left alone: not held, or without content")
    print_line(", ".join(parts))


def _print_groups(groups: Sequence[HeldGroup]) -> None:
    if groups:
        print_table(
            ("count", "channel", "lane", "status", "accepted from", "until (UTC)", "expired"),
            [
                (g.count, g.channel, g.lane, g.status, utc(g.oldest), utc(g.newest), g.expired or None)
                for g in groups
            ],
        )
