"""Mails that come back: taken from the mail server, by LMTP and SMTP or one on standard input; and those that
nothing could read."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from notifier.cli.arguments import read_id
from notifier.cli.context import Wiring, wiring
from notifier.cli.exit_codes import explain, report
from notifier.cli.output import AsJson, hint, print_json, print_line, print_pairs, print_table, utc, when
from notifier.cli.search import Before, Limit, body_lines
from notifier.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from notifier.config.settings import Settings
    from notifier.store.unread_bounces import UnreadView

#: sysexits.h: try again later. For everything: what else a mail server does with a failed bounce is drop it.
EX_TEMPFAIL = 75

_HELP = "Take bounces and complaints from the mail server; list those that nothing could read."


def register(app: typer.Typer) -> None:
    """Add the family."""
    family = typer.Typer(invoke_without_command=True, help=_HELP)
    family.callback()(bounces)
    family.command("unread")(unread)
    app.add_typer(family, name="bounces", rich_help_panel="Run the service")


def bounces(
    context: typer.Context,
    listen: Annotated[
        str, typer.Option(help="Where to take them by LMTP or SMTP, host:port; 0.0.0.0: on every address.")
    ] = "127.0.0.1:2424",
    from_stdin: Annotated[
        bool, typer.Option("--stdin", help="Take one mail from standard input, and end: for a pipe transport.")
    ] = False,
) -> None:
    """Take bounces and complaints from the mail server: undelivered mails, dead addresses, people who had enough.

    Needs NOTIFIER_BOUNCE_ADDRESS. Acknowledges nothing before it is recorded. Stops on SIGTERM or Ctrl-C.
    """
    if context.invoked_subcommand:
        return
    if from_stdin:
        raise typer.Exit(_take_one(wiring(context)))
    host, port = _address(listen)
    from notifier.cli.services import program_settings

    settings = program_settings("bounces")
    _require_address(settings)
    settings.require("database_url")
    from notifier.bootstrap import Services
    from notifier.feedback.bounce_server import THREADS, serve
    from notifier.runtime.shutdown import stop_on_signals

    stop = stop_on_signals(settings.grace_seconds)
    services = Services(settings, pool_size=THREADS, application="notifier bounces")
    services.wait_for_tables(stop)
    if not stop.is_set():
        serve(services.bounces, host, port, stop)
    services.close()


def unread(
    context: typer.Context,
    wanted: Annotated[
        UUID | None,
        typer.Argument(
            parser=read_id, help="Id of one, or of a notification.", metavar="[ID]", show_default=False
        ),
    ] = None,
    limit: Limit = 50,
    before: Before = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the kept bytes to standard output, as they came.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List mails that came back and that nothing could read, newest first; with an id, show what they say.

    Times are UTC.
    """
    with wiring(context).services() as services:
        found = (
            services.unread.page(limit=limit, before=before) if wanted is None else services.unread.find(wanted)
        )
    if wanted is not None and any(one.fault for one in found):
        for fault in dict.fromkeys(one.fault for one in found if one.fault):
            report(fault)
        raise typer.Exit(1)
    if wanted is not None and raw:
        sys.stdout.buffer.write(b"\n".join(one.content for one in found))
    elif as_json:
        print_json([_as_json(one, has_content=wanted is not None) for one in found])
    elif wanted is not None:
        for one in found:
            _print_unread(one)
    elif not found:
        hint("nothing came back that could not be read" if before is None else "that was the last page")
    else:
        rows = [(str(one.id), when(one.received_at), str(one.notification_id), str(one.size)) for one in found]
        print_table(("id", "received", "notification", "bytes"), rows, droppable=("bytes",))
        more = f"the next page: the same with --before {found[-1].id}\n" if len(found) == limit else ""
        hint(f"{more}next: notifier bounces unread ID")


def _as_json(one: UnreadView, *, has_content: bool) -> dict[str, object]:
    told: dict[str, object] = {
        name: getattr(one, name) for name in ("id", "received_at", "notification_id", "attempt", "size")
    }
    return told | ({"content": one.content.decode("utf-8", "replace")} if has_content else {})


def _print_unread(one: UnreadView) -> None:
    kept = "" if len(one.content) >= one.size else f", the first {len(one.content)} of them kept"
    print_pairs(
        [
            ("id", str(one.id)),
            ("received", f"{utc(one.received_at)} UTC"),
            ("notification", f"{one.notification_id}, attempt {one.attempt}"),
            ("size", f"{one.size} bytes{kept}"),
        ]
    )
    for line in body_lines(one.content):
        print_line(f"  {line}")
    hint(
        f"\nWhat it means is for you to say. next: notifier show {one.notification_id}; if there is nobody at the "
        "address: notifier suppressions add ADDRESS --reason hard_bounce"
    )


def _take_one(world: Wiring) -> int:
    """The exit code. Whatever goes wrong, the mail server is to keep the mail and come again."""
    try:
        from notifier.feedback.bounce_server import KEPT_BYTES

        content = sys.stdin.buffer.read(KEPT_BYTES)
        while sys.stdin.buffer.read(1024 * 1024):
            pass  # the mail server must not find the pipe closed
        with world.services() as services:
            _require_address(services.settings)
            services.bounces.take(content)
    except Exception as error:
        explain(error)
        report("nothing was acknowledged: the mail server should try again")
        return EX_TEMPFAIL
    return os.EX_OK


def _require_address(settings: Settings) -> None:
    if settings.bounce_address is None:
        raise ConfigurationError(
            "NOTIFIER_BOUNCE_ADDRESS is not set: set it to an address whose mail reaches this command, as "
            "bounces@example.com",
            setting="NOTIFIER_BOUNCE_ADDRESS",
        )


def _address(text: str) -> tuple[str, int]:
    host, found, port = text.rpartition(":")
    if not found or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigurationError("--listen takes host:port, as 127.0.0.1:2424", setting="--listen")
    return host.strip("[]"), int(port)
