"""`notifier keys`: who may use the HTTP API, and for what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from notifier.cli.arguments import read_future
from notifier.cli.context import wiring
from notifier.cli.operating import operator
from notifier.cli.output import AsJson, hint, print_json, print_line, print_table, utc
from notifier.domain.statuses import Channel

if TYPE_CHECKING:
    from notifier.operations.api_keys import ApiKeys, NewKey
    from notifier.store.api_keys import KeyView

PANEL = "Set up"

Word = TypeVar("Word", bound=StrEnum)

Id = Annotated[
    str, typer.Argument(metavar="ID", help="The 12 digits in the middle of the key.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    keys = typer.Typer(no_args_is_help=True, help="Keys of the HTTP API.")
    keys.command("create")(create)
    keys.command("list")(list_keys)
    keys.command("rotate")(rotate)
    keys.command("revoke")(revoke)
    app.add_typer(keys, name="keys", rich_help_panel=PANEL)


@contextmanager
def _keys(context: typer.Context) -> Iterator[ApiKeys]:
    from notifier.operations.api_keys import ApiKeys
    from notifier.store.api_keys import ApiKeyRepository
    from notifier.store.operator_actions import Operating

    with wiring(context).services() as services:
        yield ApiKeys(ApiKeyRepository(services.engine), Operating(services.engine, services.hash_key))


def create(
    context: typer.Context,
    producer: Annotated[
        str | None, typer.Option(help="Whom it sends and reads for; an operator's key needs none.")
    ] = None,
    scope: Annotated[
        str, typer.Option(help="What it may do, with commas: send, read, operate, admin.")
    ] = "send,read",
    name: Annotated[str | None, typer.Option(help="Who holds it; default: the producer.")] = None,
    channels: Annotated[str | None, typer.Option(help="It may send on these only, as sms.")] = None,
    templates: Annotated[
        str | None, typer.Option(help="It may send these only, with commas, as 'order_*,receipt'.")
    ] = None,
    rate: Annotated[float | None, typer.Option(metavar="N", help="So many requests a second at the most.")] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(parser=read_future, metavar="TIME", help="Not valid after: 90d from now, or a time."),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="What is sent with it goes all the way, but to no provider.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once, and kept nowhere."""
    from notifier.operations.api_keys import Grants, Scope

    grants = Grants(
        tuple(_words(Scope, scope, "--scope")),
        name or producer or "",
        producer,
        None if channels is None else tuple(_words(Channel, channels, "--channels")),
        None if templates is None else tuple(_parts(templates)),
        rate,
        expires,
        test,
    )
    with _keys(context) as keys:
        _show(keys.create(grants, operator=operator()), as_json=as_json)
    if test and not as_json:
        hint("A test key: send to bounced@simulator.example, say, and see what becomes of it. Nothing goes out.")


def rotate(
    context: typer.Context,
    key: Id,
    overlap: Annotated[
        datetime | None,
        typer.Option(parser=read_future, metavar="TIME", help="The old one is valid until then; default: 24h."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a new key with the same grants; for a while both are valid."""
    from datetime import UTC, timedelta

    now = datetime.now(UTC)
    seconds = ((overlap or now + timedelta(hours=24)) - now).total_seconds()
    with _keys(context) as keys:
        _show(keys.rotate(key, overlap_seconds=max(0.0, seconds), operator=operator()), as_json=as_json)


def revoke(
    context: typer.Context,
    key: Id,
    why: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the record.")] = None,
) -> None:
    """End a key now: its next request is refused."""
    with _keys(context) as keys:
        changed = keys.revoke(key, operator=operator(), reason=why)
    hint(f"{key} is revoked" if changed else f"{key} was revoked before")


def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """List every key, the newest first. Times are UTC."""
    with _keys(context) as keys:
        found = keys.list()
    if as_json:
        print_json(found)
    elif not found:
        hint("there are no keys. next: notifier keys create --producer shop")
    else:
        headers = ("id", "name", "producer", "scopes", "only", "rate", "expires", "last used", "state")
        print_table(headers, [_row(key) for key in found], droppable=("rate", "only", "name"))


def _row(key: KeyView) -> tuple[str, ...]:
    return (
        key.id,
        key.name,
        key.producer or "",
        ",".join(key.scopes),
        " ".join([*(key.channels or ()), *(key.templates or ())]),
        "" if key.rate_per_second is None else f"{key.rate_per_second:g}",
        utc(key.expires_at),
        utc(key.last_used_at),
        _state(key) + (", test" if key.is_test else ""),
    )


def _state(key: KeyView) -> str:
    from datetime import UTC

    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= datetime.now(UTC) else "valid"


def _show(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": made.id, "token": made.token})
        return
    print_line(made.token)
    hint("Keep it now: it is not shown again. Send it as `Authorization: Bearer …`")


def _words(words: type[Word], text: str, option: str) -> list[Word]:
    try:
        return list(dict.fromkeys(words(part) for part in _parts(text)))
    except ValueError:
        raise typer.BadParameter(f"takes {', '.join(words)}, with commas between", param_hint=option) from None


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
