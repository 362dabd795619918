"""The command line: a face of the client, the record, the templates and the settings. No rule lives here.

`PANELS` names every command and its function. Whatever is slow to import (the database, the broker's worker, the
template engine) is imported inside the command that needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from typer import Option

from notifier.cli import (
    api_keys,
    bounces,
    callbacks,
    db,
    dead_letters,
    dev,
    doctor,
    health,
    held_suppressions,
    jobs,
    notification_actions,
    notifications,
    privacy,
    providers,
    publish,
    queues,
    recurring,
    rejected,
    relay,
    restored,
    schedule,
    schema,
    send,
    services,
    statistics,
    stuck,
    suppressions,
    templates,
    top,
    up,
)
from notifier.cli.context import wiring
from notifier.cli.exit_codes import GRACE_SECONDS, Commands
from notifier.cli.output import print_line
from notifier.runtime.shutdown import Stopped, interrupt_on_signals

Command = Callable[..., None]


@dataclass(frozen=True)
class Family:
    """Commands under a common name."""

    name: str
    help: str
    commands: Sequence[Command | Family]
    #: What the name does alone; otherwise it shows the help.
    alone: Command | None = None

    def typer(self) -> typer.Typer:
        shows_help = self.alone is None
        found = typer.Typer(help=self.help, no_args_is_help=shows_help, invoke_without_command=not shows_help)
        if self.alone is not None:
            found.callback()(self.alone)
        add_commands(found, self.commands)
        return found


REJECTED = Family(
    "rejected",
    "Messages that were not accepted, with every reason.",
    (rejected.list_, rejected.show, rejected.replay, rejected.purge),
)
SUPPRESSIONS = Family(
    "suppressions",
    "Recipients to whom nothing must be sent.",
    (
        *(suppressions.list_, suppressions.show, suppressions.add, suppressions.lift),
        *(held_suppressions.held, held_suppressions.apply_held, suppressions.import_, suppressions.export),
    ),
)
CALLBACKS = Family(
    "callbacks",
    "Status callbacks: what producers are told about their messages.",
    (callbacks.run, callbacks.list_, callbacks.show, callbacks.replay, callbacks.endpoints, callbacks.resume),
)
PROVIDERS = Family(
    "providers",
    "Health of the providers; pause, resume or weigh one.",
    (providers.pause, providers.resume, providers.weigh),
    alone=providers.show,
)
TEMPLATES = Family(
    "templates", "List, check and preview templates.", (templates.list_, templates.check, templates.preview)
)
DB = Family(
    "db",
    "The tables of the database.",
    (
        *(db.upgrade, db.current, db.partitions),
        *(privacy.new_key, privacy.reseal, privacy.retention, restored.after_restore),
    ),
)
DEAD_LETTERS = Family(
    "dead",
    "Messages that RabbitMQ gave up on after too many redeliveries.",
    (dead_letters.list_, dead_letters.show, dead_letters.replay, dead_letters.purge),
)
QUEUES = Family(
    "queues", "The queues, and how many messages wait in them.", (queues.declare, DEAD_LETTERS), alone=queues.show
)
SCHEMA = Family(
    "schema",
    "The schemas of messages, callbacks, the queues and the HTTP API.",
    (schema.message, schema.callback, schema.asyncapi, schema.openapi),
)
SCHEDULE = Family("schedule", "What is done each night, when, and how it went.", (schedule.list_, schedule.run))
RECURRING = Family(
    "recurring",
    "Notifications that are sent again and again, by a plan, to a list of recipients.",
    (
        *(recurring.add, recurring.list_, recurring.show, recurring.run, recurring.pause, recurring.resume),
        *(recurring.recipients, recurring.forget, recurring.remove),
    ),
)
KEYS = Family("keys", "Keys of the HTTP API.", (api_keys.create, api_keys.list_, api_keys.rotate, api_keys.revoke))
JOBS = Family("jobs", "Long actions that workers carry out.", (jobs.list_, jobs.show, jobs.stop))
BOUNCES = Family(
    "bounces",
    "Take bounces and complaints from the mail server; list those that could not be read.",
    (bounces.unread,),
    alone=bounces.bounces,
)
#: Every command, in the order of `notifier --help`.
PANELS: Mapping[str, Sequence[Command | Family]] = {
    "Send": (send.send, publish.publish, RECURRING, relay.relay),
    "Find out": (notifications.show, notifications.search, top.top, REJECTED, statistics.statistics),
    "Act": (
        *(stuck.stuck, notification_actions.retry, notification_actions.cancel),
        *(notification_actions.reschedule, notification_actions.resolve, JOBS),
        *(SUPPRESSIONS, CALLBACKS, PROVIDERS),
    ),
    "Set up": (doctor.doctor, TEMPLATES, DB, QUEUES, SCHEDULE, SCHEMA, KEYS),
    "Run the service": (
        up.up,
        dev.demo,
        services.intake,
        services.worker,
        services.beat,
        services.api,
        services.flower,
        BOUNCES,
        health.health,
    ),
}


def add_commands(app: typer.Typer, commands: Iterable[Command | Family], panel: str | None = None) -> None:
    """Each under the name of its function: `list_` is `list`, `apply_held` is `apply-held`."""
    for command in commands:
        if isinstance(command, Family):
            app.add_typer(command.typer(), name=command.name, rich_help_panel=panel)
        else:
            app.command(command.__name__.rstrip("_").replace("_", "-"), rich_help_panel=panel)(command)


def make_app() -> typer.Typer:
    app = typer.Typer(
        name="notifier",
        cls=Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(root)
    for panel, commands in PANELS.items():
        add_commands(app, commands, panel)
    return app


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from notifier.telemetry.version import installed_version

    print_line(f"notifier {installed_version() or '(not installed: run from its source)'}")
    raise typer.Exit


def root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Send mail and SMS, find out what became of them, and run the service.

    Settings come from NOTIFIER_* variables and notifier.toml; `notifier doctor` checks them. Times are UTC.
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
