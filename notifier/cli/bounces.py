"""Mails that come back, from the mail server: as a server of LMTP and SMTP, or one on standard input."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.cli.failing import explain, report
from notifier.cli.wiring import Wiring, wiring
from notifier.errors import ConfigurationError

if TYPE_CHECKING:
    from notifier.config import Settings

#: sysexits.h: try again later. For everything: what else a mail server does with a failed bounce is drop it.
EX_TEMPFAIL = 75


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Run the service")(bounces)


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
    if from_stdin:
        raise typer.Exit(_take_one(wiring(context)))
    host, port = _address(listen)
    from notifier.cli.running import program_settings, stop_on_signals

    settings = program_settings("bounces")
    _require_address(settings)
    settings.require("database_url")
    from notifier.bootstrap import Services
    from notifier.bounces import THREADS, serve

    stop = stop_on_signals()
    services = Services(settings, pool_size=THREADS, application="notifier bounces")
    services.wait_for_tables(stop)
    if not stop.is_set():
        serve(services.bounces, host, port, stop)
    services.close()


def _take_one(world: Wiring) -> int:
    """The exit code. Whatever goes wrong, the mail server is to keep the mail and come again."""
    try:
        from notifier.providers.mail_reports import MAX_READ

        content = sys.stdin.buffer.read(MAX_READ)
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
