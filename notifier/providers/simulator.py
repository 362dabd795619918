"""Takes the place of providers for messages of test keys: it accepts them, calls nobody, and answers as the
recipient's address says. See docs/how-to/test-without-sending.md.

It stores nothing. The id that it returns says how a message ends, so any process can ask for it later, as with a
real provider's missing receipt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Self

from notifier.domain.errors import OutcomeUnknown, Rejected, Unavailable
from notifier.domain.recipient_identity import recipient_identity
from notifier.domain.statuses import SIMULATOR, Channel, Reason, Status
from notifier.providers.base import Outgoing, Receipt, Report


class Fate(StrEnum):
    DELIVERED = "delivered"  #: accepted, and reported as delivered
    BOUNCED = "bounced"  #: accepted, and reported as undelivered
    DEFERRED = "deferred"  #: the first attempt is not accepted; then as `delivered`
    REFUSED = "refused"  #: permanently refused: no such mailbox or number
    OPTED_OUT = "opted-out"  #: permanently refused: the recipient asked for no more messages
    UNKNOWN = "unknown"  #: the first attempt ends without an answer; then as `delivered`


#: The domain of simulated mail addresses. The local part is one of the names above, optionally with "+" and a
#: suffix.
DOMAIN = "simulator.example"
#: Simulated numbers, which belong to nobody.
NUMBERS: Mapping[str, Fate] = MappingProxyType({f"+1555010020{digit}": fate for digit, fate in enumerate(Fate)})

_ID = re.compile(r"sim-(?P<kind>email|sms)-(?P<fate>[a-z-]+)-[0-9a-f]{32}-\d+")


class Simulator:
    """The simulator, one for both channels. No `[[providers]]` table can name it."""

    name = SIMULATOR
    channel = Channel.EMAIL
    #: How long after acceptance it is asked how a message ended. Seconds.
    report_after_seconds = 2.0

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Self:  # noqa: ARG003 - it has none
        return cls()

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        fate = fate_of(outgoing.to)
        is_first = outgoing.attempt == 1
        match fate:
            case Fate.REFUSED:
                raise Rejected("simulated: no such recipient", reason=Reason.INVALID_RECIPIENT, code=fate)
            case Fate.OPTED_OUT:
                raise Rejected("simulated: they asked for no more", reason=Reason.OPTED_OUT, code=fate)
            case Fate.DEFERRED if is_first:
                raise Unavailable("simulated: try again later", code=fate)
            case Fate.UNKNOWN if is_first:
                raise OutcomeUnknown("simulated: no answer after the message was sent")
        kind = Channel.SMS if outgoing.to.startswith("+") else Channel.EMAIL
        id_ = f"sim-{kind}-{fate}-{outgoing.notification_id.hex}-{outgoing.attempt}"
        return Receipt(id_, "simulated: a test key sent it, nothing went out")

    async def ask(self, provider_message_id: str, *, deadline_seconds: float) -> Report:
        match = _ID.fullmatch(provider_message_id)
        if match is None:
            return Report(provider_message_id, "simulated: no such message", None)
        if match["fate"] == Fate.BOUNCED:
            reason = Reason.HARD_BOUNCE if match["kind"] == Channel.EMAIL else Reason.UNREACHABLE_RECIPIENT
            return Report(provider_message_id, "undelivered: simulated", Status.UNDELIVERED, reason)
        return Report(provider_message_id, "delivered: simulated", Status.DELIVERED)

    async def check(self, *, deadline_seconds: float) -> str:
        return "simulated"

    async def close(self) -> None:
        """Does nothing: no connection is open."""


def fate_of(to: str) -> Fate:
    """How a message to this recipient ends. Recipients that are in neither list get `delivered`."""
    address = recipient_identity(to)
    name, _, domain = address.rpartition("@")
    if domain == DOMAIN:
        name = name.partition("+")[0]
        return Fate(name) if name in set(Fate) else Fate.DELIVERED
    return NUMBERS.get(address, Fate.DELIVERED)
