"""The command line: one more face of the client, the record, the templates and the settings. No rule lives here.

One module for each family of commands, each with `register(app)`. Whatever is slow to import (the database, the
broker's worker, the template engine) is imported inside the command that needs it.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from notifier.cli import (
    api_keys,
    bounces,
    callbacks,
    db,
    dev,
    doctor,
    notification_actions,
    notifications,
    providers,
    rejected,
    relay,
    send,
    services,
    suppressions,
    templates,
)
from notifier.cli.context import wiring
from notifier.cli.exit_codes import GRACE_SECONDS, Commands
from notifier.cli.output import print_line
from notifier.runtime.shutdown import Stopped, interrupt_on_signals

#: In the order of `notifier --help`.
FAMILIES = (
    send,
    relay,
    notifications,
    rejected,
    notification_actions,
    suppressions,
    callbacks,
    providers,
    templates,
    dev,
    services,
    bounces,
    db,
    api_keys,
    doctor,
)


def make_app() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="notifier",
        cls=Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(root)
    for family in FAMILIES:
        family.register(app)
    return app


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        print_line(f"notifier {version('notifier')}")
    except PackageNotFoundError:
        print_line("notifier (not installed: run from its source)")
    raise typer.Exit


def root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Send mail and SMS, find out what became of them, and run the service.

    Settings come from NOTIFIER_* variables and notifier.toml; `notifier doctor` checks them.
    """
    context.obj = wiring(context)


app = make_app()


def main() -> None:
    """Entry point of the program `notifier`."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show 中文 gets \u4e2d instead of a trace.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    interrupt_on_signals(GRACE_SECONDS)
    try:
        app()
    except Stopped as stopped:
        # Before the command began, or while the interpreter was at its own end.
        sys.exit(stopped.exit_code)
