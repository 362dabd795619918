"""`notifier keys`: who may use the HTTP API, and for what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from notifier.cli.actions import SHOWN_SKIPPED, operator
from notifier.cli.arguments import read_choices, split_commas
from notifier.cli.context import wiring
from notifier.cli.options import AsJson, Why, future, grouped
from notifier.cli.output import columns, hint, print_json, print_line, print_list, utc, warn
from notifier.domain.statuses import Channel

if TYPE_CHECKING:
    from notifier.operations.api_keys import Grants, NewKey


Id = Annotated[str, Argument(metavar="ID", help="The 12 digits in the middle of the key.")]


@dataclass(frozen=True, slots=True)
class GrantOptions:
    """What a new key allows."""

    producer: Annotated[str | None, Option(help="The service it is for; none for an operator's key.")] = None
    scope: Annotated[str, Option(help="What it may do, separated by commas: send, read, operate, admin.")] = (
        "send,read"
    )
    name: Annotated[str | None, Option(help="Who holds it; default: the producer.")] = None
    channels: Annotated[str | None, Option(help="Channels it may send on, for example sms; default: all.")] = None
    templates: Annotated[str | None, Option(help="Templates it may send: 'order_*,receipt'; default: all.")] = None
    rate: Annotated[float | None, Option(metavar="N", help="Maximum number of requests per second.")] = None
    expires: Annotated[datetime | None, future("Not valid after: 90d (from now), or a time.")] = None
    test: Annotated[bool, Option("--test", help="Messages sent with it go all the way, except to a provider.")] = (
        False
    )

    def grants(self) -> Grants:
        from notifier.operations.api_keys import Grants, Scope

        return Grants(
            scopes=tuple(read_choices(Scope, self.scope, "--scope")),
            name=self.name or self.producer or "",
            producer=self.producer,
            channels=None if self.channels is None else tuple(read_choices(Channel, self.channels, "--channels")),
            templates=None if self.templates is None else tuple(split_commas(self.templates)),
            rate_per_second=self.rate,
            expires_at=self.expires,
            is_test=self.test,
        )


@grouped
def create(context: typer.Context, *, options: GrantOptions, as_json: AsJson = False) -> None:
    """Create an API key. It is shown once and stored nowhere."""
    grants = options.grants()
    with wiring(context).services() as services:
        _show(services.api_keys.create(grants, operator=operator()), as_json=as_json)
    if options.test and not as_json:
        hint("A test key: nothing leaves the service. Try it with bounced@simulator.example")


def rotate(
    context: typer.Context,
    key: Id,
    overlap: Annotated[datetime | None, future("When the old key ends; default: 24h (from now).")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a new key with the same grants. Both are valid for a while."""
    now = datetime.now(UTC)
    seconds = ((overlap or now + timedelta(hours=24)) - now).total_seconds()
    with wiring(context).services() as services:
        _show(
            services.api_keys.rotate(key, overlap_seconds=max(0.0, seconds), operator=operator()), as_json=as_json
        )


def revoke(context: typer.Context, key: Id, why: Why = None) -> None:
    """Revoke a key now: its next request is rejected."""
    with wiring(context).services() as services:
        changed = services.api_keys.revoke(key, operator=operator(), reason=why)
        plans = services.api_keys.plans_left(key)
    hint(f"{key} is revoked" if changed else f"{key} was already revoked")
    if plans:
        warn("recurring notifications go on without it. Pause those that should not:")
    for plan in plans[:SHOWN_SKIPPED]:
        whose = "made or changed with this key" if plan.is_by_key else f"of {plan.producer}"
        hint(f"notifier recurring pause {plan.id}   # {plan.name}, {whose}")
    if len(plans) > SHOWN_SKIPPED:
        hint(f"and {len(plans) - SHOWN_SKIPPED} more. next: notifier recurring list")


def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List all keys, newest first."""
    with wiring(context).services() as services:
        found = services.api_keys.list()
    print_list(
        found,
        {
            **columns("id", "name", "producer"),
            "scopes": lambda key: ",".join(key.scopes),
            "only": lambda key: " ".join([*(key.channels or ()), *(key.templates or ())]),
            "rate": lambda key: None if key.rate_per_second is None else f"{key.rate_per_second:g}",
            "expires": lambda key: utc(key.expires_at),
            "last used": lambda key: utc(key.last_used_at),
            "state": lambda key: key.state(datetime.now(UTC)) + (", test" if key.is_test else ""),
        },
        as_json=as_json,
        noun="key",
        empty="there are no keys. next: notifier keys create --producer shop",
        droppable=("rate", "only", "name"),
    )


def _show(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": made.id, "token": made.token})
        return
    print_line(made.token)
    hint("Store it now: it is not shown again. Send it as `Authorization: Bearer …`")
