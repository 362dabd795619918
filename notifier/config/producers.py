"""The tables `[producers.<name>]` of notifier.toml: who a producer is on the broker, and what it may send."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from notifier.domain.message import Name
from notifier.domain.producers import TEMPLATE_PATTERN, SendingRights
from notifier.domain.statuses import Channel, Lane


def _as_list(value: Any) -> Any:
    """A single name may be written without brackets."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and not value:
        raise ValueError("is empty, which would allow nothing: leave it out, or name what is allowed")
    return value


def _is_among(words: type[StrEnum]) -> Callable[[Any], Any]:
    """One error that lists the valid words, instead of one error for each item."""

    def check(value: Any) -> Any:
        for word in value if isinstance(value, list | tuple) else ():
            if word not in list(words):
                raise ValueError(f"{word!r} is not one of {', '.join(words)}")
        return value

    return check


def _patterns(value: Any) -> Any:
    for pattern in value if isinstance(value, list | tuple) else ():
        if not isinstance(pattern, str) or not TEMPLATE_PATTERN.match(pattern):
            raise ValueError(f"{pattern!r} is not a pattern of template names, such as 'order_*'")
    return value


def _user(value: str) -> str:
    if not value.isprintable() or len(value.encode()) > 255:
        raise ValueError("is not the name of a broker user: 1 to 255 printable characters")
    return value


class ProducerTable(BaseModel):
    """A producer. Whatever is left out has no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Its RabbitMQ users: one, or several during a rotation. Without any, nothing proves who publishes.
    broker_user: Annotated[
        tuple[Annotated[str, Field(min_length=1), AfterValidator(_user)], ...], BeforeValidator(_as_list)
    ] = ()
    #: Channels on which it may send, such as ["email"].
    channels: Annotated[
        tuple[Channel, ...] | None, BeforeValidator(_is_among(Channel)), BeforeValidator(_as_list)
    ] = None
    #: Lanes on which it may send, such as ["urgent", "normal"].
    lanes: Annotated[tuple[Lane, ...] | None, BeforeValidator(_is_among(Lane)), BeforeValidator(_as_list)] = None
    #: Names of templates that it may use, or patterns such as "order_*".
    templates: Annotated[tuple[str, ...] | None, BeforeValidator(_patterns), BeforeValidator(_as_list)] = None
    #: Sender identities that its messages may use, and that its `reply_to` may name.
    senders: Annotated[tuple[Name, ...] | None, BeforeValidator(_as_list)] = None

    @property
    def rights(self) -> SendingRights:
        return SendingRights(self.channels, self.lanes, self.templates, self.senders)


def check_producers(tables: Mapping[str, ProducerTable], senders: Collection[str]) -> None:
    """Raises `ValueError` if the tables contradict each other or name unknown sender identities."""
    owners: dict[str, str] = {}
    for name, table in tables.items():
        for user in table.broker_user:
            other = owners.setdefault(user, name)
            if other != name:
                raise ValueError(
                    f"the broker user {user} belongs to both {other} and {name}: a user proves one producer, so "
                    "make one for each"
                )
        unknown = sorted(set(table.senders or ()) - set(senders))
        if unknown:
            known = ", ".join(sorted(senders))
            raise ValueError(
                f"{name} may use the sender {unknown[0]}, which is not configured: use one of {known}"
            )
