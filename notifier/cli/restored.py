"""`notifier db after-restore`: what was on its way in a restored backup is held, and released."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.operating import (
    DryRun,
    Ids,
    OfChannel,
    Producer,
    Provider,
    Recipient,
    Reference,
    Since,
    Template,
    Until,
    Why,
    Yes,
    operator,
    progress_bar,
)
from notifier.cli.output import AsJson, hint, is_terminal, print_json, print_line, print_table, utc

if TYPE_CHECKING:
    from notifier.operations.restored import HoldResult, ReleaseResult, Restored
    from notifier.store.restored import HeldGroup


def add_to_db(db: typer.Typer) -> None:
    """Add the command to the family of `db`."""
    db.command("after-restore")(after_restore)


def after_restore(
    context: typer.Context,
    ids: Ids = None,
    release: Annotated[
        bool, typer.Option("--release", help="Send what is held: by id, by the conditions, or with --all.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="With --release: everything that is held.")] = False,
    nothing_lost: Annotated[
        bool,
        typer.Option(
            "--nothing-lost", help="Hold nothing: pg_upgrade, or a failover that lost nothing. Needs --why."
        ),
    ] = False,
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
    """Hold what was on its way in the backup that the database was restored from; then programs go on.

    Between the backup and now the service may have sent it. It waits as unknown, with the reason restored, until
    it is released (--release), resolved or cancelled; callbacks are parked. If it is interrupted, run it again.
    """
    conditions = {
        "provider": provider,
        "template": template,
        "recipient": recipient,
        "reference": reference,
        "producer": producer,
        "channel": channel,
        "since": since,
        "until": until,
    }
    has_selection = bool(ids) or everything or any(value is not None for value in conditions.values())
    if has_selection and not release:
        raise typer.BadParameter(
            "ids, conditions and --all are for --release: what is on its way is held as a whole"
        )
    if release and nothing_lost:
        raise typer.BadParameter("give one of the two: --release or --nothing-lost")
    if nothing_lost and not why:
        raise typer.BadParameter("say why nothing was lost: --why")
    with restored(context) as found:
        if release:
            _release(found, ids or (), conditions, everything, why, dry_run=dry_run, yes=yes, as_json=as_json)
        elif nothing_lost:
            _accept(found, why or "", dry_run=dry_run, yes=yes, as_json=as_json)
        else:
            _hold(found, why, dry_run=dry_run, yes=yes, as_json=as_json)


@contextmanager
def restored(context: typer.Context) -> Iterator[Restored]:
    """The actions, on the configured database."""
    from notifier.operations.restored import Restored
    from notifier.store.operator_actions import Operating
    from notifier.store.restored import RestoredRepository

    with wiring(context).services() as services:
        book = RestoredRepository(services.engine, services.hash_key)
        yield Restored(book, Operating(services.engine, services.hash_key))


def _hold(found: Restored, why: str | None, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    seen = found.hold(operator=operator(), dry_run=True)
    if dry_run:
        _tell_held(seen, as_json)
        return
    if _asks(yes):
        if not as_json:
            _tell_held(seen, as_json)
        _confirm(f"hold {seen.held} notifications and {seen.callbacks} callbacks?")
    with progress_bar("held", seen.held, hidden=as_json) as progress:
        _tell_held(found.hold(operator=operator(), reason=why, progress=progress), as_json)


def _accept(found: Restored, why: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    seen = found.hold(operator=operator(), dry_run=True)
    if not dry_run and _asks(yes):
        _confirm(f"hold nothing, and go on with {seen.held} notifications that are on their way?")
    if not dry_run:
        seen = found.accept(operator=operator(), reason=why)
    if as_json:
        print_json(seen)
        return
    _tell_differences(seen)
    if dry_run:
        print_line(f"nothing would be held, and {seen.held} notifications would go on their way")
    else:
        print_line("nothing is held; programs go on within seconds")
        hint(f"operator record {seen.record_id}")


def _release(
    found: Restored,
    ids: Sequence[Any],
    conditions: dict[str, Any],
    everything: bool,
    why: str | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    from notifier.store.filters import Filter

    wanted = Filter(**conditions)
    chosen: dict[str, Any] = {"everything": everything, "operator": operator()}
    if dry_run or _asks(yes or bool(ids)):
        seen = found.release(wanted, ids, dry_run=True, **chosen)
        if dry_run:
            _tell_released(seen, as_json)
            return
        if not as_json:
            _print_groups(seen.groups)
        _confirm(f"release {seen.released}?")
    with progress_bar("released", None, hidden=as_json) as progress:
        done = found.release(wanted, ids, reason=why, progress=progress, **chosen)
    _tell_released(done, as_json)
    if done.skipped:
        raise typer.Exit(FAILED)


def _asks(yes: bool) -> bool:
    """Whether somebody is there to be asked, and wants to be."""
    return not yes and is_terminal(sys.stdin)


def _confirm(question: str) -> None:
    if not typer.confirm(question, err=True):
        hint("nothing was done")
        raise typer.Exit(FAILED)


def _tell_differences(result: HoldResult) -> None:
    for difference in result.differences:
        print_line(f"another database: {difference}")
    if not result.differences:
        print_line("the database is the one it was, as far as it can tell")


def _tell_held(result: HoldResult, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    if result.record_id is None:
        _tell_differences(result)
        _print_groups(result.groups)
        print_line(f"would be held: {result.held} notifications, {result.callbacks} callbacks")
        return
    print_line(f"held: {result.held} notifications, {result.callbacks} callbacks; programs go on within seconds")
    hint(f"operator record {result.record_id}")
    if result.held:
        hint("next: notifier search --reason restored; then notifier db after-restore --release with conditions")
    if result.callbacks:
        hint("callbacks: notifier callbacks replay --failure restored")


def _tell_released(result: ReleaseResult, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    is_done = result.record_id is not None
    _print_groups(result.groups)
    parts = [f"{result.released} {'released' if is_done else 'would be released'}"]
    if result.expired:
        parts.append(f"{result.expired} {'are' if is_done else 'would be'} expired")
    if result.skipped:
        parts.append(f"{result.skipped} left alone: not held, or wiped")
    print_line(", ".join(parts))
    if is_done:
        hint(f"operator record {result.record_id}")
        hint("next: notifier stuck")


def _print_groups(groups: Sequence[HeldGroup]) -> None:
    if not groups:
        return
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
    print_table(("count", "channel", "lane", "status", "accepted from", "until (UTC)", "time is over"), rows)
