"""Drafts: the correct part of a refused message, checked further, so that one answer lists all that is wrong.

The further checks need the service's templates and settings. A draft is never sent and never stored, so it adds no
crash point to the intake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from notifier.domain.errors import Fault
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane


@dataclass(frozen=True, slots=True)
class Draft:
    """The correct part of a refused message, to be checked."""

    message: Message
    #: Fields that were wrong and have harmless values here; faults found in them mean nothing.
    replaced: frozenset[str] = frozenset()
    #: Faults of the message as a whole, which pydantic finds only once each field is correct.
    as_whole: tuple[ValidationError, ...] = field(default=(), compare=False)

    def without(self, faults: Iterable[Fault]) -> Draft:
        """The draft with harmless values for the fields of these faults that further checks would parse."""
        harmless = {"to": _SOMEBODY[self.message.channel or Channel.EMAIL], "callback_url": None}
        wrong = {fault.field for fault in faults}.intersection(harmless)
        message = self.message.model_copy(update={name: harmless[name] for name in wrong})
        return replace(self, message=message, replaced=self.replaced | wrong)


#: Stands in for a recipient that is wrong.
_SOMEBODY = {Channel.EMAIL: "x@example.com", Channel.SMS: "+15550100100"}


#: Code of a fault of the message as a whole → fields to leave out of its draft.
_OF_WHOLE: Mapping[str, frozenset[str]] = {
    "no_key": frozenset({"idempotency_key"}),
    "expires_before_send": frozenset({"send_at", "expires_at"}),
}
#: Wrong field → another field that cannot be checked without it.
_JUDGED_BY = {"producer": "callback_url", "template": "context"}


def draft_of(value: Mapping[str, Any], channel: Channel, lane: Lane, error: ValidationError) -> Draft | None:
    """A message of the correct fields of `value`, which pydantic refused. None: the message is for another
    channel, or a fault remains that no field is to blame for."""
    wrong: set[str] = set()
    as_whole: list[ValidationError] = []
    while True:
        found = _wrong_fields(error)
        if "channel" in found or found <= wrong:
            return None
        wrong |= found | {_JUDGED_BY[name] for name in found & _JUDGED_BY.keys()}
        try:
            message = Message.model_validate(_clean(value, channel, lane, wrong))
        except ValidationError as more:
            as_whole.append(more)
            error = more
        else:
            return Draft(message, frozenset(wrong), tuple(as_whole))


def _wrong_fields(error: ValidationError) -> set[str]:
    details = error.errors(include_url=False, include_input=False)
    fields = {str(detail["loc"][0]) for detail in details if detail["loc"]}
    codes = [detail.get("ctx", {}).get("code", "") for detail in details if not detail["loc"]]
    return fields.union(*(_OF_WHOLE.get(code, frozenset()) for code in codes))


def _clean(value: Mapping[str, Any], channel: Channel, lane: Lane, wrong: set[str]) -> dict[str, Any]:
    """The correct fields, with harmless values for those that a message must have."""
    harmless = {"producer": "x", "template": "x", "to": _SOMEBODY[channel]}
    if wrong & {"id", "idempotency_key"}:
        harmless["idempotency_key"] = "x"
    kept = {name: item for name, item in value.items() if name not in wrong and item is not None}
    return {**harmless, **kept, "channel": channel, "lane": lane}
