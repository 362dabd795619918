"""Which provider is next, and what an answer means for the whole delivery. Pure; no I/O.

Failover inside one delivery happens after an answer by which the message was surely not accepted, where another
provider may answer otherwise: the one is throttled, away, refuses our account or sender, or does not serve the
destination.
"""

from __future__ import annotations

from dataclasses import dataclass

from notifier.delivery.prepare import Prepared
from notifier.delivery.provider_calls import Call
from notifier.domain.destinations import destination_of
from notifier.domain.errors import Rejected, SendError, Throttled, Unavailable
from notifier.domain.routing import Route
from notifier.domain.statuses import Channel, Reason, Subject
from notifier.store.records import Claimed, NewAttempt


@dataclass(frozen=True, slots=True)
class Routed:
    """Ready to go, with the providers it may still be given to."""

    prepared: Prepared
    providers: tuple[str, ...]
    #: See `Route.probe`.
    probe: str | None = None
    #: Some provider may take it later: one that is not called now, or that did not refuse it for good.
    has_hope: bool = False
    #: Calls that were made under its claim before.
    earlier: int = 0


def new_attempt(routed: Routed) -> NewAttempt:
    """The call to the first of its providers."""
    return NewAttempt(routed.prepared.claim, routed.providers[0], routed.prepared.guard, routed.earlier)


def goes_on(call: Call, routed: Routed) -> bool:
    """Whether its next provider is tried."""
    return len(routed.providers) > 1 and _may_go_on(call)


def _may_go_on(call: Call) -> bool:
    answer = call.answer
    if isinstance(answer, Rejected):
        return answer.subject is Subject.DESTINATION
    return isinstance(answer, Throttled | Unavailable) and call.was_made


def onward_from(call: Call, routed: Routed) -> Routed:
    """To its next provider."""
    has_hope = routed.has_hope or not isinstance(call.answer, Rejected)
    earlier = call.started.number - routed.prepared.claim.attempt_count
    return Routed(routed.prepared, routed.providers[1:], routed.probe, has_hope, earlier)


def to_decide(answer: SendError, routed: Routed) -> SendError:
    """What the last answer of a delivery is decided by. A destination that one provider does not serve fails the
    message only if no other one may serve it later."""
    if isinstance(answer, Rejected) and answer.subject is Subject.DESTINATION and routed.has_hope:
        return Unavailable(answer.detail, code=answer.code, reason=answer.reason, subject=answer.subject)
    return answer


def detail_of(claim: Claimed, error: SendError) -> str:
    """The provider's words; of a destination that is refused also which one it is, and never who lives there."""
    if error.subject is not Subject.DESTINATION:
        return error.detail
    return f"{destination_of(claim.channel, claim.address)}: {error.detail}"


def no_route(one: Prepared, channel: Channel, found: Route) -> Unavailable:
    """Why nobody is called."""
    match found.reason:
        case Reason.NOT_CONFIGURED:
            text = f"no provider for {channel} is configured"
        case Reason.OPERATOR:
            text = f"every provider for {channel} is paused"
        case Reason.SENDER_REFUSED:
            text = f"the sender {one.identity} is held back: see `notifier providers`"
        case _:
            text = f"no provider for {channel} can be called now: see `notifier providers`"
    return Unavailable(text, reason=found.reason, retry_after_seconds=found.wait_seconds)
