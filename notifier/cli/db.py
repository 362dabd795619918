"""`notifier db upgrade`, `current` and `partitions`: the tables, and the monthly partitions of the large ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import AsJson, DryRun, Now, check_now
from notifier.cli.output import hint, print_json, print_line, print_table, warn
from notifier.domain.errors import ServiceUnavailable

if TYPE_CHECKING:
    from notifier.bootstrap import Services
    from notifier.store.schema.partitions import MadeMonths, MissingMonth, Stray


def upgrade(context: typer.Context, as_json: AsJson = False) -> None:
    """Upgrade the tables to this version, and create the partitions of the coming months. Safe to repeat."""
    from notifier.store.schema import upgrade as migrations
    from notifier.store.schema.partitions import made_until
    from notifier.store.schema.revisions import revisions

    with wiring(context).services() as services:
        url = services.settings.require("database_url")
        before, _ = revisions(services.engine)
        migrations.upgrade(url)
        after, _ = revisions(services.engine)
        until = made_until(services.engine)
    if as_json:
        print_json({"from": before, "to": after, "partitions_until": until})
        return
    if before == after:
        print_line(f"already at revision {after}")
    else:
        print_line(f"upgraded from {before or 'an empty database'} to revision {after}")
    print_line(f"partitions are there until the end of {until}")
    hint("next: notifier doctor")


def current(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the revision of the tables. Exits 1 if this version needs a newer one."""
    from notifier.store.schema.revisions import missing_upgrade, revisions

    with wiring(context).services() as services:
        found, newest = revisions(services.engine)
        missing = missing_upgrade(services.engine)
    if as_json:
        print_json({"current": found, "newest": newest})
    elif found == newest:
        print_line(f"revision {found}, the newest")
    elif missing is None:
        print_line(f"revision {found}, newer than this version, whose newest is {newest}")
    else:
        print_line(f"{f'revision {found}' if found else 'no tables'}; this version needs {newest}")
        hint("next: notifier db upgrade")
    if missing is not None:
        raise typer.Exit(FAILED)


def partitions(context: typer.Context, now: Now = False, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Show or create the missing monthly partitions, and move their rows into them.

    Exits 1 if a month could not be created.
    """
    from notifier.store.schema.partitions import made_until, missing_months, strays

    check_now(now=now, dry_run=dry_run)
    with wiring(context).services() as services:
        missing = missing_months(services.engine)
        made = _make(services) if now else None
        until, others = made_until(services.engine), strays(services.engine)
    if as_json:
        print_json({"dry_run": dry_run, "missing": missing, "made": made, "until": until, "in_default": others})
    elif made is None:
        _show(missing)
    else:
        _print_made(made)
    if not as_json:
        print_line(f"partitions are there until the end of {until}" if until else "this month has no partitions")
        _print_others(others)
    if made is not None and made.failed:
        raise typer.Exit(FAILED)


def _make(services: Services) -> MadeMonths:
    from notifier.store.schema.partitions import MadeMonths, ensure_partitions

    made = MadeMonths()
    try:
        with services.upkeep.recorded("partitions"):
            made = ensure_partitions(services.engine)
            made.raise_failures()
    except ServiceUnavailable:
        if not made.failed:
            raise
    return made


def _show(missing: list[MissingMonth]) -> None:
    if not missing:
        print_line("no month is missing")
        return
    rows = [(one.month.name, ", ".join(one.names), one.rows) for one in missing]
    print_table(("month", "missing", "rows to move"), rows)
    hint("moving rows blocks every program, about 6 s per million rows. next: notifier db partitions --now")


def _print_made(made: MadeMonths) -> None:
    print_line(f"{len(made.names)} partitions created{': ' if made.names else ''}{', '.join(made.names)}")
    if made.moved:
        print_line(f"{made.moved} rows moved out of the default partitions")
    for month, why in made.failed.items():
        warn(f"{month} could not be created: {why}")


def _print_others(others: list[Stray]) -> None:
    for one in others:
        where = "later than all months" if one.is_ahead else "earlier than all months"
        span = f"{one.first_at:%Y-%m-%d} to {one.last_at:%Y-%m-%d}"
        hint(f"{one.rows} rows of {one.table} stay in the default partition: their IDs are {where}, {span}")
