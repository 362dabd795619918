"""The assumed channel of a message that names none: from its recipient, otherwise from its template.

Clients send by it. The HTTP API requires a channel, but still checks the rest of the message by the assumed one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from notifier.domain.errors import Fault
from notifier.domain.statuses import Channel


def by_recipient(to: object) -> Channel:
    """sms for a text that begins with +, otherwise email."""
    return Channel.SMS if isinstance(to, str) and to.startswith("+") else Channel.EMAIL


def is_neither(to: object) -> bool:
    """Whether this recipient suggests no channel: it does not begin with + and has no @."""
    return not isinstance(to, str) or ("@" not in to and not to.startswith("+"))


def assumed_channel(to: object, template: object, channel_of: Callable[[object], Channel | None]) -> Channel:
    """The channel that the message probably means. `channel_of` returns the only channel that has a template; it
    is asked if the recipient suggests none."""
    return (channel_of(template) if is_neither(to) else None) or by_recipient(to)


def of_no_channel(fault: Fault) -> Fault:
    """The fault of a recipient that `is_neither`, reworded for both channels because the message named none."""
    if fault.field != "to" or fault.code not in ("not_an_address", "not_e164"):
        return fault
    problem = "neither an e-mail address nor a number in E.164"
    return replace(fault, problem=problem, fix="Write it as name@example.com or as +15550100123")
