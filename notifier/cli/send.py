"""`notifier send`: sends one message from the command line."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from notifier.cli.arguments import GivenContext, read_context
from notifier.cli.context import wiring
from notifier.cli.options import AsJson, MessageOptions, future, grouped
from notifier.cli.output import hint, one_line, print_json, print_line
from notifier.cli.wait import OutcomeWaiter
from notifier.domain.assumed_channel import assumed_channel
from notifier.domain.errors import InvalidMessage
from notifier.domain.statuses import Channel, Lane

if TYPE_CHECKING:
    from notifier.client.handles import Handle
    from notifier.config.settings import Settings


@dataclass(frozen=True)
class SendOptions(MessageOptions):
    """Options for one message, which is sent once, so times may be counted from now."""

    lane: Annotated[Lane, Option(help="How urgent it is.")] = Lane.NORMAL
    key: Annotated[str | None, Option("--key", help="Idempotency key: if used before, nothing is sent.")] = None
    send_at: Annotated[datetime | None, future("Not before: 2h (from now), 2026-11-22 or RFC 3339.")] = None
    expires_at: Annotated[datetime | None, future("Not after; written like --send-at.")] = None


@grouped
def send(
    context: typer.Context,
    template: Annotated[str, Argument(help="Name of the template.")],
    to: Annotated[str, Argument(help="E-mail address, or number as +15550100123.", metavar="TO")],
    *,
    message: SendOptions,
    wait: Annotated[
        float | None,
        Option(min=0, metavar="SECONDS", help="Wait up to this long for the outcome; needs the database."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send one message.

    The command returns when the broker has the message; with --wait, when a provider has it or it has failed.
    """
    world = wiring(context)
    given, settings = read_context(message.values or ()), world.settings()
    variables = _typed(given, settings, message.channel, to, template)
    with ExitStack() as stack:
        waiter = None
        if wait is not None:
            waiter = OutcomeWaiter(stack.enter_context(world.services()).audit, to, message.key)
        client = stack.enter_context(world.client(settings, message.producer))
        fields = {"idempotency_key": message.key, **message.fields()}
        try:
            handle = client.send(
                template, to, context=variables, channel=message.channel, lane=message.lane, **fields
            )
        except InvalidMessage:
            from notifier.cli.local_encoder import LocalEncoder

            local = LocalEncoder(settings.templates, message.producer)
            local.encode(template, to, variables, message.channel, message.lane, fields)
            raise
        if waiter is None or wait is None:
            _print_handle(handle, as_json=as_json)
        else:
            waiter.wait(handle, seconds=wait, as_json=as_json)


def _typed(
    given: GivenContext, settings: Settings, channel: Channel | None, to: str, template: str
) -> dict[str, Any]:
    if not given.texts:
        return given.values
    from notifier.cli.template_types import VariableTypes

    types = VariableTypes(settings.templates)
    channel = channel or assumed_channel(to, template, types.channel_of)
    return types.typed(channel, template, given.values, given.texts)


def _print_handle(handle: Handle, *, as_json: bool) -> None:
    if as_json:
        print_json(handle)
        return
    print_line(str(handle.id))
    key = "" if handle.idempotency_key == str(handle.id) else f" under the key {one_line(handle.idempotency_key)}"
    hint(f"the broker has it, queue notify.{handle.channel}.{handle.lane}{key}\nnext: notifier show {handle.id}")
