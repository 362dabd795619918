"""`notifier db upgrade` and `current`: the revision of the tables."""

from __future__ import annotations

import typer

from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import AsJson
from notifier.cli.output import hint, print_json, print_line


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
        print_line(f"revision {found}, of a later version than this one, whose newest is {newest}")
    else:
        print_line(f"{f'revision {found}' if found else 'no tables'}; this version needs {newest}")
        hint("next: notifier db upgrade")
    if missing is not None:
        raise typer.Exit(FAILED)
