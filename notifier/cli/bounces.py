"""`notifier bounces`: receives returned mails from the mail server, and lists those that could not be read."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from typer import Argument, Option

from notifier.cli.arguments import read_id
from notifier.cli.context import Wiring, wiring
from notifier.cli.exit_codes import FAILED, explain, report
from notifier.cli.options import AsJson, MetricsPort, PageOptions, Raw, grouped
from notifier.cli.output import (
    body_lines,
    columns,
    hint,
    print_json,
    print_line,
    print_list,
    print_pairs,
    stored_size,
    utc,
)
from notifier.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from notifier.config.settings import Settings
    from notifier.store.unread_bounces import UnreadView

#: sysexits.h: try again later. Used for every failure, because otherwise a mail server drops the bounce.
EX_TEMPFAIL = 75


def bounces(
    context: typer.Context,
    listen: Annotated[str, Option(help="host:port for LMTP or SMTP; 0.0.0.0 is all.")] = "127.0.0.1:2424",
    from_stdin: Annotated[bool, Option("--stdin", help="Read one mail from standard input, then end.")] = False,
    metrics_port: MetricsPort = None,
) -> None:
    """Take bounces and complaints from the mail server.

    Needs NOTIFIER_BOUNCE_ADDRESS. A mail is acknowledged once it is recorded. Stops on SIGTERM or Ctrl-C.
    """
    if context.invoked_subcommand:
        return
    if from_stdin:
        raise typer.Exit(_take_one(wiring(context)))
    host, port = _address(listen)
    from notifier.cli.services import program_settings, serve_metrics, trace_notifications

    settings = program_settings("bounces")
    _require_address(settings)
    settings.require("database_url")
    serve_metrics("bounces", settings, metrics_port)
    trace_notifications("bounces")
    from notifier.bootstrap import Services
    from notifier.config.database_pools import BOUNCES_POOL
    from notifier.feedback.bounce_server import serve
    from notifier.runtime.shutdown import stop_on_signals

    stop = stop_on_signals(settings.grace_seconds)
    services = Services(settings, pool_size=BOUNCES_POOL, application="notifier bounces")
    services.wait_for_tables(stop)
    if not stop.is_set():
        serve(services.bounces, host, port, stop)
    services.close()


@grouped
def unread(
    context: typer.Context,
    wanted: Annotated[
        UUID | None, Argument(parser=read_id, help="ID of a bounce or of a notification.", metavar="[ID]")
    ] = None,
    *,
    page: PageOptions,
    raw: Raw = False,
    as_json: AsJson = False,
) -> None:
    """List returned mails that could not be read, newest first; with an ID, show one."""
    with wiring(context).services() as services:
        if wanted is not None:
            _show_unread(services.unread.find(wanted), raw=raw, as_json=as_json)
            return
        found = services.unread.page(limit=page.limit, before=page.before)
    print_list(
        found,
        columns("id", "received=received_at", "notification=notification_id", "bytes=size"),
        as_json=as_json,
        to_json=_as_json,
        noun="unread bounce",
        empty="that was the last page" if page.before else "every returned mail could be read",
        next_step="notifier bounces unread ID",
        droppable=("bytes",),
        following=page.following(found),
    )


def _show_unread(found: Sequence[UnreadView], *, raw: bool, as_json: bool) -> None:
    faults = dict.fromkeys(one.fault for one in found if one.fault)
    if faults:
        for fault in faults:
            report(fault)
        raise typer.Exit(FAILED)
    if raw:
        sys.stdout.buffer.write(b"\n".join(one.content for one in found))
    elif as_json:
        print_json([_as_json(one) | {"content": one.content.decode("utf-8", "replace")} for one in found])
    else:
        for one in found:
            _print_unread(one)


def _as_json(one: UnreadView) -> dict[str, object]:
    return {name: getattr(one, name) for name in ("id", "received_at", "notification_id", "attempt", "size")}


def _print_unread(one: UnreadView) -> None:
    print_pairs(
        [
            ("id", one.id),
            ("received", f"{utc(one.received_at)} UTC"),
            ("notification", f"{one.notification_id}, attempt {one.attempt}"),
            ("size", stored_size(one.size, len(one.content))),
        ]
    )
    for line in body_lines(one.content):
        print_line(f"  {line}")
    hint(
        f"\nDecide what it means. next: notifier show {one.notification_id}; if the address does not exist: "
        "notifier suppressions add ADDRESS --reason hard_bounce"
    )


def _take_one(world: Wiring) -> int:
    """Read one mail. Returns the exit code: after any failure, the mail server must keep the mail and try
    again."""
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
            "NOTIFIER_BOUNCE_ADDRESS is not set: set it to an address whose mail reaches this command, such as "
            "bounces@example.com",
            setting="NOTIFIER_BOUNCE_ADDRESS",
        )


def _address(text: str) -> tuple[str, int]:
    host, found, port = text.rpartition(":")
    if not found or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigurationError("--listen takes host:port, such as 127.0.0.1:2424", setting="--listen")
    return host.strip("[]"), int(port)
