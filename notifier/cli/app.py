"""The command line: a face of the client, the record, the templates and the settings, without rules of its own.

`PANELS` names every command and its function. What is slow to import (the database, the broker's worker, the
template engine) is imported inside the command that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from typer import Option

from notifier.cli import standard_streams
from notifier.cli.command_tree import Family, LazyCommand, rooted_in
from notifier.cli.context import wiring
from notifier.cli.exit_codes import GRACE_SECONDS, explain_os
from notifier.cli.output import print_line
from notifier.runtime.garbage_collection import spare_exit, spare_imports
from notifier.runtime.shutdown import Stopped, interrupt_on_signals

REJECTED = Family(
    "rejected",
    "Messages that were not accepted, with every reason.",
    ("rejected.list_", "rejected.show", "rejected.replay", "rejected.purge"),
)
SUPPRESSIONS = Family(
    "suppressions",
    "Recipients to whom nothing may be sent.",
    (
        *("suppressions.list_", "suppressions.show", "suppressions.add", "suppressions.lift"),
        *("held_suppressions.held", "held_suppressions.apply_held", "suppressions.import_", "suppressions.export"),
    ),
)
CALLBACKS = Family(
    "callbacks",
    "Status callbacks: what producers are told about their messages.",
    (
        *("callbacks.run", "callbacks.list_", "callbacks.show", "callbacks.replay"),
        *("callbacks.endpoints", "callbacks.resume"),
    ),
)
PROVIDERS = Family(
    "providers",
    "Health of the providers; pause, resume or weigh one.",
    ("providers.pause", "providers.resume", "providers.weigh"),
    alone="providers.show",
)
TEMPLATES = Family(
    "templates", "List, check and preview templates.", ("templates.list_", "templates.check", "templates.preview")
)
DB = Family(
    "db",
    "The tables of the database.",
    (
        *("db.upgrade", "db.current", "db.partitions"),
        *("privacy.new_key", "privacy.reseal", "privacy.retention", "restored.after_restore"),
    ),
)
DEAD_LETTERS = Family(
    "dead",
    "Messages that RabbitMQ gave up on after too many redeliveries.",
    ("dead_letters.list_", "dead_letters.show", "dead_letters.replay", "dead_letters.purge"),
)
QUEUES = Family(
    "queues",
    "The queues, and how many messages wait in them.",
    ("queues.declare", DEAD_LETTERS),
    alone="queues.show",
)
SCHEMA = Family(
    "schema",
    "The schemas of messages, callbacks, the queues and the HTTP API.",
    ("schema.message", "schema.callback", "schema.asyncapi", "schema.openapi"),
)
SCHEDULE = Family(
    "schedule", "The nightly work: when it runs, and how it went.", ("schedule.list_", "schedule.run")
)
RECURRING = Family(
    "recurring",
    "Notifications that are sent on a schedule to a list of recipients.",
    (
        *("recurring.add", "recurring.list_", "recurring.show", "recurring.run", "recurring.pause"),
        *("recurring.resume", "recurring.recipients", "recurring.forget", "recurring.remove"),
    ),
)
KEYS = Family(
    "keys", "Keys of the HTTP API.", ("api_keys.create", "api_keys.list_", "api_keys.rotate", "api_keys.revoke")
)
JOBS = Family("jobs", "Long actions that workers carry out.", ("jobs.list_", "jobs.show", "jobs.stop"))
BOUNCES = Family(
    "bounces",
    "Receive bounces and complaints from the mail server; list those that could not be read.",
    ("bounces.unread",),
    alone="bounces.bounces",
)
#: Every command, in the order in which `notifier --help` shows them.
PANELS: Mapping[str, Sequence[LazyCommand | Family]] = {
    "Send": (
        LazyCommand("send.send", "Send one message."),
        LazyCommand("publish.publish", "Send a file of messages: CSV, or one JSON object per line."),
        RECURRING,
        LazyCommand(
            "relay.relay",
            "Publish the messages that a producer wrote into its outbox.",
        ),
    ),
    "Find out": (
        LazyCommand(
            "notifications.show",
            "Show one notification: its status, its timeline, and the callbacks to its producer.",
        ),
        LazyCommand("notifications.search", "Find notifications, newest first."),
        LazyCommand(
            "top.top",
            "Watch the backlog, the calls to providers, open circuits and the broker's queues.",
        ),
        REJECTED,
        LazyCommand(
            "statistics.statistics",
            "Show how many notifications each day had, by the time in their ids, and what became of them.",
        ),
    ),
    "Act": (
        LazyCommand(
            "stuck.stuck",
            "Show what is late and why, which providers and senders are on hold, and whether many sends failed "
            "within the last hour.",
        ),
        LazyCommand(
            "notification_actions.retry",
            "Retry notifications that ended without success: by ID, or all that match the conditions.",
        ),
        LazyCommand(
            "notification_actions.cancel",
            "Stop unsent notifications for good: by ID, or all that match the conditions.",
        ),
        LazyCommand(
            "notification_actions.reschedule",
            "Give notifications that wait for their first call another time: by ID, or all that match the "
            "conditions.",
        ),
        LazyCommand(
            "notification_actions.resolve",
            "Decide about notifications that are unknown: they may or may not have been sent.",
        ),
        JOBS,
        SUPPRESSIONS,
        CALLBACKS,
        PROVIDERS,
    ),
    "Set up": (
        LazyCommand("doctor.doctor", "Check everything that can be wrong, and say how to fix it."),
        TEMPLATES,
        DB,
        QUEUES,
        SCHEDULE,
        SCHEMA,
        KEYS,
    ),
    "Run the service": (
        LazyCommand("up.up", "Run the whole service on this machine, and start whatever is not configured."),
        LazyCommand(
            "dev.demo",
            "Run the whole service in a temporary folder, send a shop's examples through it, and show the "
            "outcome.",
        ),
        LazyCommand(
            "services.intake",
            "Move producers' messages from the broker into the database.",
        ),
        LazyCommand(
            "services.worker",
            "Deliver notifications.",
        ),
        LazyCommand("services.beat", "Start the sweep every second, and the daily jobs."),
        LazyCommand(
            "services.api",
            "Answer HTTP requests: send, search, retry.",
        ),
        LazyCommand(
            "services.flower",
            "Show workers and tasks in the browser, with a read-only Celery Flower.",
        ),
        BOUNCES,
        LazyCommand(
            "health.health",
            "Ask a running program whether it still works, by its /healthz.",
        ),
    ),
}


def make_app() -> typer.Typer:
    app = typer.Typer(
        name="notifier",
        cls=rooted_in(PANELS),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(root)
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
    spare_imports()
    spare_exit()
    # Nobody extends our models with plug-ins, and looking for plug-ins reads the metadata of every installed
    # package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    standard_streams.prepare()
    interrupt_on_signals(GRACE_SECONDS)
    try:
        try:
            app()
        finally:
            # Also for the help and the version, which are not commands.
            sys.stdout.flush()
    except OSError as error:
        sys.exit(explain_os(error))
    except Stopped as stopped:
        # Stopped before the command began, or while the interpreter was ending.
        sys.exit(stopped.exit_code)
