"""What is right of a refused message: for checks that need the service's templates and settings, so that one
answer has everything that is wrong.

A draft is never sent and never stored, so it adds no crash point to the intake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from notifier.domain.errors import Fault
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to check."""

    message: Message
    #: Fields that were wrong and have harmless values here; what is found there means nothing.
    replaced: frozenset[str] = frozenset()

    def without(self, faults: Iterable[Fault]) -> Draft:
        """Without the values that these are about and that are parsed by who checks it."""
        harmless = {"to": _SOMEBODY[self.message.channel or Channel.EMAIL], "callback_url": None}
        wrong = {fault.field for fault in faults}.intersection(harmless)
        message = self.message.model_copy(update={name: harmless[name] for name in wrong})
        return Draft(message, self.replaced | wrong)


#: In the place of a recipient that is wrong.
_SOMEBODY = {Channel.EMAIL: "x@example.com", Channel.SMS: "+15550100100"}


def draft_of(value: Mapping[str, Any], channel: Channel, lane: Lane, error: ValidationError) -> Draft | None:
    """A message of what is right in `value`, which pydantic refused. None: it is for another channel, or something
    is wrong in itself that no field is to blame for."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    wrong = {str(detail["loc"][0]) for detail in details if detail["loc"]}
    if "channel" in wrong:
        return None
    if any(not detail["loc"] for detail in details):  # no key, or times that do not go together
        wrong |= {"idempotency_key", "send_at", "expires_at"}
    if "producer" in wrong:
        wrong.add("callback_url")  # it depends on who sends
    if "template" in wrong:
        wrong.add("context")
    harmless = {"producer": "x", "template": "x", "to": _SOMEBODY[channel], "idempotency_key": "x"}
    clean = {name: item for name, item in value.items() if name not in wrong}
    known = {"channel": channel, "lane": lane}
    try:
        message = Message.model_validate(
            {**{name: harmless[name] for name in harmless.keys() - clean}, **clean, **known}
        )
    except ValidationError:
        return None
    return Draft(message, frozenset(wrong))
