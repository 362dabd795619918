"""The channel of a message that names none: told by its recipient, otherwise by its template.

Clients send by it. The HTTP API asks for the channel, and checks the rest by it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from notifier.domain.errors import Fault
from notifier.domain.statuses import Channel


def by_recipient(to: object) -> Channel:
    """sms for what begins with +, otherwise email."""
    return Channel.SMS if isinstance(to, str) and to.startswith("+") else Channel.EMAIL


def is_neither(to: object) -> bool:
    """Whether this tells no channel: it begins like no number, and is like no address."""
    return not isinstance(to, str) or ("@" not in to and not to.startswith("+"))


def assumed_channel(to: object, template: object, channel_of: Callable[[object], Channel | None]) -> Channel:
    """`channel_of` tells the only channel that has a template; it is asked if the recipient tells none."""
    return (channel_of(template) if is_neither(to) else None) or by_recipient(to)


def of_no_channel(fault: Fault) -> Fault:
    """What is wrong with a recipient that `is_neither`: no channel was named, so it is held against both."""
    if fault.field != "to" or fault.code not in ("not_an_address", "not_e164"):
        return fault
    problem = "neither an e-mail address nor a number in E.164"
    return replace(fault, problem=problem, fix="Write it as name@example.com or as +15550100123")
