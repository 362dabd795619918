"""`notifier send` and `notifier publish`: producing from the command line."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notifier.cli.arguments import Given, channel_of, read_context, read_future, read_metadata
from notifier.cli.context import wiring
from notifier.cli.output import AsJson, hint, one_line, print_json, print_line
from notifier.cli.publish import publish
from notifier.cli.wait import Waiting
from notifier.domain.statuses import Channel, Lane

if TYPE_CHECKING:
    from notifier.client.client import Handle
    from notifier.config.settings import Settings

PANEL = "Send"


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command(rich_help_panel=PANEL)(send)
    app.command(rich_help_panel=PANEL)(publish)


def send(
    context: typer.Context,
    template: Annotated[str, typer.Argument(help="Name of the template.", show_default=False)],
    to: Annotated[
        str, typer.Argument(help="E-mail address, or number as +15550100123.", metavar="TO", show_default=False)
    ],
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            "-c",
            metavar="JSON|@FILE|NAME=TEXT|NAME:=JSON",
            help="Variables of the template; give it as often as you like.",
        ),
    ] = None,
    channel: Annotated[Channel | None, typer.Option(help="Default: sms for a number, else email.")] = None,
    lane: Annotated[Lane, typer.Option(help="How urgent it is.")] = Lane.NORMAL,
    producer: Annotated[str, typer.Option(help="Who sends it.")] = "cli",
    key: Annotated[
        str | None, typer.Option("--key", help="Idempotency key: a second message with it is the same one.")
    ] = None,
    locale: Annotated[str | None, typer.Option(help="Language of the reader, as fr or fr-CA.")] = None,
    sender: Annotated[str | None, typer.Option(help="Name of a sender identity of notifier.toml.")] = None,
    reply_to: Annotated[str | None, typer.Option(help="Name of the identity that gets the replies.")] = None,
    reference: Annotated[str | None, typer.Option(help="Your own reference, to search for.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TEXT", help="Kept with it; as often as you like.")
    ] = None,
    send_at: Annotated[
        datetime | None,
        typer.Option(parser=read_future, metavar="TIME", help="Not before: 2h, 2026-11-22 or RFC 3339."),
    ] = None,
    expires_at: Annotated[
        datetime | None, typer.Option(parser=read_future, metavar="TIME", help="Not after; written the same.")
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Wait that long for what becomes of it; needs the database."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send one message.

    It is done when the broker has it; with --wait, when a provider has it or it has failed.
    """
    world = wiring(context)
    fields: dict[str, Any] = {
        "idempotency_key": key,
        "locale": locale,
        "sender": sender,
        "reply_to": reply_to,
        "reference": reference,
        "metadata": read_metadata(metadata or ()) or None,
        "send_at": send_at,
        "expires_at": expires_at,
    }
    given, settings = read_context(values or ()), world.settings()
    variables = _typed(given, settings, channel or channel_of(to), template)
    with ExitStack() as stack:
        waiting = None
        if wait is not None:
            waiting = Waiting(stack.enter_context(world.services()).audit, to, key)
        client = stack.enter_context(world.client(settings, producer))
        handle = client.send(template, to, context=variables, channel=channel, lane=lane, **fields)
        if waiting is None or wait is None:
            _tell(handle, as_json=as_json)
        else:
            waiting.wait(handle, seconds=wait, as_json=as_json)


def _typed(given: Given, settings: Settings, channel: Channel, template: str) -> dict[str, Any]:
    if not given.texts:
        return given.values
    from notifier.cli.template_types import Typist

    return Typist(settings.templates).typed(channel, template, given.values, given.texts)


def _tell(handle: Handle, *, as_json: bool) -> None:
    if as_json:
        print_json(handle)
        return
    print_line(str(handle.id))
    key = "" if handle.idempotency_key == str(handle.id) else f" under the key {one_line(handle.idempotency_key)}"
    hint(f"the broker has it, queue notify.{handle.channel}.{handle.lane}{key}\nnext: notifier show {handle.id}")
