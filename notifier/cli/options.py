"""Options that several commands share, each defined once, alone or in a group.

A group is a frozen dataclass. A command takes it as one keyword, and `grouped` shows its fields to Typer as
options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints
from uuid import UUID

from typer import Argument, BadParameter, Option

from notifier.cli.arguments import read_future, read_id, read_id_start, read_metadata, read_past
from notifier.domain.id_range import IdRange
from notifier.domain.statuses import Channel, Reason, Status

if TYPE_CHECKING:
    from notifier.store.filters import Filter


def past(text: str) -> Any:
    """An option for a time in the past."""
    return Option(parser=read_past, metavar="TIME", help=text)


def future(text: str) -> Any:
    """An option for a time in the future."""
    return Option(parser=read_future, metavar="TIME", help=text)


def ids_of(things: str) -> Any:
    """An argument for any number of IDs."""
    return Argument(parser=read_id, metavar="ID…", help=f"IDs of {things}.")


def one_of(words: type[StrEnum], metavar: str, text: str) -> Any:
    """An option for a word of a long list. Typer would put the list into the metavar, which a terminal breaks
    within words."""
    return Option(metavar=metavar, help=f"{text}: {', '.join(words)}.")


AsJson = Annotated[bool, Option("--json", help="Print JSON and nothing else.")]
Ids = Annotated[list[UUID] | None, ids_of("notifications")]
Why = Annotated[str | None, Option(metavar="TEXT", help="Why you do it; kept in the operator record.")]
DryRun = Annotated[bool, Option("--dry-run", help="Count what would be done, and do nothing.")]
Now = Annotated[bool, Option("--now", help="Do it now, to the end; Beat does it every night.")]
Yes = Annotated[bool, Option("--yes", "-y", help="Do not ask for confirmation.")]
Since = Annotated[datetime | None, past("Not before: 2h or 3d (ago), 2026-11-22 or RFC 3339.")]
Until = Annotated[datetime | None, past("Before; written like --since.")]
OfProducer = Annotated[str | None, Option(help="The service that sent it.")]
OfChannel = Annotated[Channel | None, Option(help="Only this channel.")]
OfReason = Annotated[Reason | None, one_of(Reason, "REASON", "The reason for its status")]
ChannelOfRecipient = Annotated[Channel | None, Option(help="Default: sms for a number, otherwise email.")]
Limit = Annotated[int, Option(min=1, max=1000, metavar="N", help="Maximum number of results.")]
Before = Annotated[UUID | None, Option(parser=read_id, metavar="ID", help="The page after this ID.")]
Variables = Annotated[
    list[str] | None,
    Option(
        "--context", "-c", metavar="JSON|@FILE|NAME=TEXT|NAME:=JSON", help="Variables of the template; repeatable."
    ),
]
MetricsPort = Annotated[
    int | None,
    Option(min=1, max=65535, show_default=False, help="Port of /metrics and /healthz; or NOTIFIER_METRICS_PORT."),
]
Raw = Annotated[bool, Option("--raw", help="Write the stored bytes to standard output, unchanged.")]
OperandStart = Annotated[
    IdRange,
    Argument(parser=read_id_start, metavar="ID", help="The ID, or as much of its beginning as `search` shows."),
]
Operand = Annotated[UUID, Argument(parser=read_id, metavar="ID", help="All 36 characters of the ID.")]


def check_now(*, now: bool, dry_run: bool) -> None:
    if now == dry_run:
        fix = "give one of the two: --dry-run counts, --now does it"
        raise BadParameter(fix, param_hint="--now / --dry-run")


@dataclass(frozen=True, slots=True)
class PageOptions:
    limit: Limit = 50
    before: Before = None

    def following(self, found: Sequence[Any]) -> UUID | None:
        """The value of `--before` for the next page; None on the last page."""
        return found[-1].id if len(found) == self.limit else None


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """Conditions on notifications, except status and reason, which not every command takes."""

    recipient: Annotated[str | None, Option(help="Address or number; a display name does not matter.")] = None
    reference: Annotated[str | None, Option(help="The producer's own reference.")] = None
    producer: OfProducer = None
    channel: OfChannel = None
    template: Annotated[str | None, Option(help="Name of the template.")] = None
    provider: Annotated[str | None, Option(help="The provider that was tried last.")] = None
    since: Since = None
    until: Until = None

    def is_empty(self) -> bool:
        return self == FilterOptions()

    def filter(
        self, *, status: Status | None = None, reason: Reason | None = None, is_test: bool | None = None
    ) -> Filter:
        from notifier.store.filters import Filter

        return Filter(**asdict(self), status=status, reason=reason, is_test=is_test)


@dataclass(frozen=True, slots=True)
class ActionOptions:
    why: Why = None
    dry_run: DryRun = False
    yes: Yes = False
    as_json: AsJson = False


@dataclass(frozen=True)
class MessageOptions:
    """Fields of a message for `send`, and in `publish` for lines that lack them. Each command adds times, which it
    reads in its own way."""

    values: Variables = None
    channel: ChannelOfRecipient = None
    producer: Annotated[str, Option(help="The service that sends it.")] = "cli"
    locale: Annotated[str | None, Option(help="Language of the reader, for example fr or fr-CA.")] = None
    sender: Annotated[str | None, Option(help="Name of a sender identity in notifier.toml.")] = None
    reply_to: Annotated[str | None, Option(help="Name of the identity that receives replies.")] = None
    reference: Annotated[str | None, Option(help="Your own reference, to search for.")] = None
    metadata: Annotated[
        list[str] | None, Option(metavar="NAME=TEXT", help="Stored with the message; repeatable.")
    ] = None

    def fields(self) -> dict[str, Any]:
        """Fields of the contract that no other option changes; None if not given."""
        names = ("locale", "sender", "reply_to", "reference", "send_at", "expires_at")
        return {
            **{name: getattr(self, name) for name in names},
            "metadata": read_metadata(self.metadata or ()) or None,
        }


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer should see it: with the fields of each group as separate options."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        shown = _options(groups[name]) if name in groups else [parameter.replace(annotation=hints[name])]
        parameters += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in shown]

    @wraps(command)
    def call(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{one.name: given.pop(one.name) for one in fields(kind)})
        command(**given)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    return call


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(
            one.name,
            kind,
            default=inspect.Parameter.empty if one.default is MISSING else one.default,
            annotation=hints[one.name],
        )
        for one in fields(group)
    ]
