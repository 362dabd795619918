"""`notifier db`, `queues` and `schema`: setting up and looking after the service."""

from __future__ import annotations

import typer

from notifier.cli import dead_letters, partitions, privacy, restored
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.output import AsJson, hint, print_json, print_line, print_table
from notifier.domain.errors import MissingPackage

PANEL = "Set up"


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    db = typer.Typer(no_args_is_help=True, help="The tables of the database.")
    db.command("upgrade")(db_upgrade)
    db.command("current")(db_current)
    partitions.add_to_db(db)
    privacy.add_to_db(db)
    restored.add_to_db(db)
    app.add_typer(db, name="db", rich_help_panel=PANEL)
    queues = typer.Typer(invoke_without_command=True, help="The queues, and how many messages wait in them.")
    queues.callback()(queues_show)
    queues.command("declare")(queues_declare)
    dead_letters.add_to_queues(queues)
    app.add_typer(queues, name="queues", rich_help_panel=PANEL)
    schema = typer.Typer(no_args_is_help=True, help="The schemas of messages, callbacks and the HTTP API.")
    schema.command("message")(schema_message)
    schema.command("callback")(schema_callback)
    schema.command("openapi")(schema_openapi)
    app.add_typer(schema, name="schema", rich_help_panel=PANEL)


def db_upgrade(context: typer.Context, as_json: AsJson = False) -> None:
    """Upgrade the tables to this version, and create the partitions of the coming months. Safe to repeat."""
    from notifier.store.schema.partitions import made_until
    from notifier.store.schema.revisions import revisions
    from notifier.store.schema.upgrade import upgrade

    with wiring(context).services() as services:
        url = services.settings.require("database_url")
        before, _ = revisions(services.engine)
        upgrade(url)
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


def db_current(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the revision of the tables. Exits 1 if this version needs a newer one."""
    from notifier.store.schema.revisions import missing_upgrade, revisions

    with wiring(context).services() as services:
        current, newest = revisions(services.engine)
        missing = missing_upgrade(services.engine)
    if as_json:
        print_json({"current": current, "newest": newest})
    elif current == newest:
        print_line(f"revision {current}, the newest")
    elif missing is None:
        print_line(f"revision {current}, of a later version than this one, whose newest is {newest}")
    else:
        print_line(f"{f'revision {current}' if current else 'no tables'}; this version needs {newest}")
        hint("next: notifier db upgrade")
    if missing is not None:
        raise typer.Exit(FAILED)


def queues_show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show every queue and how many messages wait in it. Exits 1 if one is missing."""
    if context.invoked_subcommand:
        return
    from notifier.broker.inspection import Broker, producer_queues
    from notifier.broker.topology import work_queues

    url = wiring(context).settings().require("broker_url")
    with Broker.connect(url) as broker:
        states = [broker.state(queue) for queue in (*producer_queues(), *work_queues())]
    missing = [state for state in states if state.messages is None]
    if as_json:
        print_json(states)
    else:
        rows = [
            (
                state.queue,
                "missing" if state.messages is None else str(state.messages),
                "" if state.consumers is None else str(state.consumers),
            )
            for state in states
        ]
        styles = ["red" if state.messages is None else "" for state in states]
        print_table(("queue", "messages", "readers"), rows, column_styles={1: styles})
        if missing:
            hint(f"{len(missing)} queues are missing. next: notifier queues declare")
    if missing:
        raise typer.Exit(FAILED)


def queues_declare(context: typer.Context) -> None:
    """Create the exchanges and queues that are missing. Safe to repeat; Redis needs none."""
    from notifier.broker.inspection import Broker, producer_queues, where
    from notifier.broker.topology import work_queues

    url = wiring(context).settings().require("broker_url")
    with Broker.connect(url) as broker:
        if broker.is_redis:
            hint("a Redis-protocol broker creates its lists when they are first used: nothing to declare")
            return
        broker.declare()
    print_line(f"{len(producer_queues()) + len(work_queues())} queues are declared on {where(url)}")
    hint("next: notifier queues")


def schema_message() -> None:
    """Print the JSON Schema of a message, and of a batch of messages."""
    from notifier.domain.message import json_schema

    print_json(json_schema())


def schema_callback() -> None:
    """Print the JSON Schema of a callback, as a producer's endpoint receives it."""
    from notifier.callbacks.payload import json_schema

    print_json(json_schema())


def schema_openapi() -> None:
    """Print the OpenAPI document of the HTTP API. Needs no server and no settings."""
    try:
        from notifier.api.app import make_app
    except ImportError:
        raise MissingPackage("the HTTP API needs more packages: pip install 'notifier[web]'") from None
    print_json(make_app().openapi())
