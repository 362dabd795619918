"""`notifier db after-restore`: holds what was on its way in a restored backup, and releases it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.cli.actions import ActionEnding, run_action
from notifier.cli.context import wiring
from notifier.cli.options import ActionOptions, FilterOptions, Ids, grouped
from notifier.cli.output import hint, print_line, print_table, utc

if TYPE_CHECKING:
    from notifier.operations.restored import HoldResult, ReleaseResult, Restored
    from notifier.store.restored import HeldGroup


def add_to_db(db: typer.Typer) -> None:
    """Add the command to the family of `db`."""
    db.command("after-restore")(after_restore)


@grouped
def after_restore(
    context: typer.Context,
    ids: Ids = None,
    *,
    release: Annotated[
        bool, typer.Option("--release", help="Send held notifications: by ID, by conditions, or with --all.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="With --release: everything that is held.")] = False,
    nothing_lost: Annotated[
        bool,
        typer.Option(
            "--nothing-lost",
            help="Hold nothing: for pg_upgrade, or a failover that lost nothing. Needs --why.",
        ),
    ] = False,
    filters: FilterOptions,
    options: ActionOptions,
) -> None:
    """Hold what was on its way in the backup that the database was restored from, so that programs can go on.

    The service may have sent it between the backup and now. It becomes unknown, with the reason restored, until it
    is released (--release), resolved or cancelled; its callbacks are parked. If the command is interrupted, run it
    again.
    """
    if (ids or everything or not filters.is_empty()) and not release:
        raise typer.BadParameter("IDs, conditions and --all go with --release: without it everything is held")
    if release and nothing_lost:
        raise typer.BadParameter("give one of the two: --release or --nothing-lost")
    if nothing_lost and not options.why:
        raise typer.BadParameter("say why nothing was lost: --why")
    with restored(context) as found:
        if release:
            perform = partial(found.release, filters.filter(), ids or (), everything=everything)
            run_action(perform, ReleaseEnding(), options, asks=not ids)
        elif nothing_lost:
            run_action(partial(_accept, found), AcceptEnding(), options)
        else:
            run_action(found.hold, HoldEnding(), options)


@contextmanager
def restored(context: typer.Context) -> Iterator[Restored]:
    """The actions, on the configured database."""
    from notifier.operations.restored import Restored
    from notifier.store.operator_actions import Operating
    from notifier.store.restored import RestoredRepository

    with wiring(context).services() as services:
        book = RestoredRepository(services.engine, services.hash_key)
        yield Restored(book, Operating(services.engine, services.hash_key))


def _accept(
    found: Restored, *, operator: str, reason: str | None = None, dry_run: bool = False, progress: object = None
) -> HoldResult:
    """Hold nothing. A dry run looks at what would have been held."""
    del progress  # it is one statement
    return (
        found.hold(operator=operator, dry_run=True)
        if dry_run
        else found.accept(operator=operator, reason=reason or "")
    )


class HoldEnding(ActionEnding["HoldResult"]):
    """The report on what was held."""

    def __init__(self) -> None:
        super().__init__("hold", "held", asks_from=0)

    def count(self, result: HoldResult) -> int:
        """Notifications."""
        return result.held

    def question(self, result: HoldResult) -> str:
        """With the callbacks."""
        return f"hold {result.held} notifications and {result.callbacks} callbacks?"

    def preview(self, result: HoldResult) -> None:
        """Print how the database differs, and what would be held."""
        _print_differences(result)
        _print_groups(result.groups)
        print_line(f"would be held: {result.held} notifications, {result.callbacks} callbacks")

    def outcome(self, result: HoldResult) -> None:
        """Print what is held."""
        print_line(
            f"held: {result.held} notifications, {result.callbacks} callbacks; programs go on within seconds"
        )

    def advise(self, result: HoldResult) -> None:
        """Name the commands that release it."""
        if result.held:
            hint(
                "next: notifier search --reason restored; then notifier db after-restore --release with conditions"
            )
        if result.callbacks:
            hint("callbacks: notifier callbacks replay --failure restored")


class AcceptEnding(HoldEnding):
    """The report when nothing was lost, and nothing is held."""

    def question(self, result: HoldResult) -> str:
        """What is sent although a backup may be older than it."""
        return f"hold nothing, and go on with {result.held} notifications that are on their way?"

    def preview(self, result: HoldResult) -> None:
        """Print how the database differs, and what would go on."""
        _print_differences(result)
        print_line(f"nothing would be held, and {result.held} notifications would go on")

    def outcome(self, result: HoldResult) -> None:
        """Print how the database differed."""
        _print_differences(result)
        print_line("nothing is held; programs go on within seconds")

    def advise(self, result: HoldResult) -> None:
        """There is nothing to do."""


class ReleaseEnding(ActionEnding["ReleaseResult"]):
    """The report on what was released."""

    def __init__(self) -> None:
        super().__init__("release", "released", asks_from=0)

    def count(self, result: ReleaseResult) -> int:
        """Notifications."""
        return result.released

    def has_failed(self, result: ReleaseResult) -> bool:
        """Whether one that was named by its id was skipped."""
        return result.record_id is not None and bool(result.skipped)

    def preview(self, result: ReleaseResult) -> None:
        """Print the groups and the counts."""
        _print_released(result, "would be ")

    def outcome(self, result: ReleaseResult) -> None:
        """Print the groups and the counts."""
        _print_released(result, "")

    def advise(self, result: ReleaseResult) -> None:
        """Name the command that shows what waits."""
        hint("next: notifier stuck")


def _print_differences(result: HoldResult) -> None:
    for difference in result.differences:
        print_line(f"another database: {difference}")
    if not result.differences:
        print_line("the database is the same one, as far as can be told")


def _print_released(result: ReleaseResult, would_be: str) -> None:
    _print_groups(result.groups)
    parts = [f"{result.released} {would_be}released"]
    if result.expired:
        parts.append(f"{result.expired} {would_be or 'are '}expired")
    if result.skipped:
        parts.append(f"{result.skipped} left alone: not held, or their content is wiped")
    print_line(", ".join(parts))


def _print_groups(groups: Sequence[HeldGroup]) -> None:
    headers = ("count", "channel", "lane", "status", "accepted from", "until (UTC)", "expired")
    rows = [
        (
            str(group.count),
            group.channel,
            group.lane,
            group.status,
            utc(group.oldest),
            utc(group.newest),
            str(group.expired or ""),
        )
        for group in groups
    ]
    if rows:
        print_table(headers, rows)
