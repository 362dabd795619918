"""Decides which provider is next, and what an answer means for the whole delivery. Pure; no I/O.

Delivery goes on to the next provider if the message was certainly not accepted and another provider may answer
differently: throttled, unavailable, our account or sender refused, destination not served.
"""

from __future__ import annotations

from notifier.delivery.delivery import Delivery
from notifier.domain.destinations import destination_of
from notifier.domain.errors import Rejected, SendError, Throttled, Unavailable
from notifier.domain.routing import NO_PROVIDER_NOW, Route
from notifier.domain.statuses import Reason, Subject
from notifier.store.records import NotificationToSend


def goes_on(delivery: Delivery) -> bool:
    """Whether its next provider is called."""
    return len(delivery.providers) > 1 and _may_go_on(delivery)


def _may_go_on(delivery: Delivery) -> bool:
    answer = delivery.answer
    if isinstance(answer, Rejected):
        return answer.subject is Subject.DESTINATION
    return isinstance(answer, Throttled | Unavailable) and delivery.was_called


def to_decide(answer: SendError, *, has_hope: bool = False) -> SendError:
    """The answer that decides about a delivery, given its last one. If one provider does not serve a destination,
    the message fails only if no other provider may serve it later."""
    if isinstance(answer, Rejected) and answer.subject is Subject.DESTINATION and has_hope:
        return Unavailable(answer.detail, code=answer.code, reason=answer.reason, subject=answer.subject)
    return answer


def detail_of(notification: NotificationToSend, error: SendError) -> str:
    """The provider's words. If the destination is refused, they are preceded by the destination, never by the
    recipient's address."""
    if error.subject is not Subject.DESTINATION:
        return error.detail
    return f"{destination_of(notification.channel, notification.address)}: {error.detail}"


def no_route(delivery: Delivery, found: Route) -> Unavailable:
    """Why no provider is called."""
    channel = delivery.notification.channel
    match found.reason:
        case Reason.NOT_CONFIGURED:
            text = f"no provider for {channel} is configured"
        case Reason.OPERATOR:
            text = f"every provider for {channel} is paused"
        case Reason.SENDER_REFUSED:
            text = f"the sender {delivery.content.identity} is held back: see `notifier providers`"
        case _:
            text = NO_PROVIDER_NOW.format(channel)
    return Unavailable(text, reason=found.reason, retry_after_seconds=found.wait_seconds)
