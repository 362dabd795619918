"""Reads Vonage's answer to a send: several parts, each with a status, become one receipt or one error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from notifier.domain.errors import SendError
from notifier.domain.statuses import Outcome
from notifier.providers.base import Receipt
from notifier.providers.outcomes import UNKNOWN, Verdict
from notifier.providers.redaction import sms_detail
from notifier.providers.vonage.codes import ACCEPTED, judge, pause_seconds

#: If parts were refused for different reasons, the gravest counts: the message cannot be sent whole until that one
#: is fixed.
_GRAVITY = (Outcome.THROTTLED, Outcome.UNAVAILABLE, Outcome.REJECTED, Outcome.UNKNOWN)


@dataclass(frozen=True, slots=True)
class VonagePart:
    """One entry of `messages`: a part of the text that fits into one SMS."""

    status: str
    message_id: str
    words: str

    @property
    def is_accepted(self) -> bool:
        return self.status == ACCEPTED

    @property
    def verdict(self) -> Verdict:
        return judge(self.status, self.words)


def read_receipt(body: str) -> Receipt:
    """Return the receipt, if every part was accepted.

    If only some parts were accepted, the outcome is unknown and a person has to look: parts cannot be recalled, a
    phone shows them in pieces or not at all, and sending again would double them.

    Raises:
        SendError: in all other cases.
    """
    parts = _read_parts(body)
    accepted = [part for part in parts if part.is_accepted]
    if not accepted:
        raise _refused(parts)
    if len(accepted) < len(parts):
        refused = next(part for part in parts if not part.is_accepted)
        detail = f"{len(accepted)} of {len(parts)} parts accepted, the others not: {refused.words}"
        raise UNKNOWN.error(sms_detail(detail), code=refused.status)
    if not all(part.message_id for part in parts):
        raise UNKNOWN.error("accepted without a message id", code=ACCEPTED)
    others = ", ".join(part.message_id for part in parts[1:])
    return Receipt(parts[0].message_id, f"accepted; further parts: {others}" if others else "accepted")


def _refused(parts: Sequence[VonagePart]) -> SendError:
    gravest = max(parts, key=lambda part: _GRAVITY.index(part.verdict.outcome))
    waits = [wait for part in parts if (wait := pause_seconds(part.words)) is not None]
    return gravest.verdict.error(
        sms_detail(gravest.words) or f"status {gravest.status}",
        code=gravest.status,
        retry_after_seconds=max(waits, default=None),
    )


def _read_parts(body: str) -> tuple[VonagePart, ...]:
    """Read the parts. Raises `OutcomeUnknown` if the answer cannot be read, or lists fewer parts than it
    counts."""
    try:
        content = json.loads(body)
        parts = tuple(
            VonagePart(str(item["status"]), str(item.get("message-id") or ""), str(item.get("error-text") or ""))
            for item in content["messages"]
        )
        announced = int(content.get("message-count", len(parts)))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UNKNOWN.error(f"unreadable answer: {type(error).__name__}", code="200") from error
    if not parts or len(parts) != announced:
        raise UNKNOWN.error(f"answer lists {len(parts)} of {announced} parts", code="200")
    return parts
