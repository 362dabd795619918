"""Explains in words why an action skipped something, and why something is late."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from notifier.domain.labels import REASONS, status_in_words
from notifier.domain.statuses import Channel, Reason, Status
from notifier.store.circuits import CircuitState
from notifier.store.hash_keys import HashKeyUse
from notifier.store.operator_actions import Seen
from notifier.store.search import NotificationView
from notifier.store.stuck import Cause, Late

NO_SUCH = "there is no such notification"
_GONE = "its secrets or its recipient were wiped, so it cannot be sent again: its producer has to send a new one"
_ENDED = (Status.FAILED, Status.EXPIRED, Status.UNDELIVERED, Status.SUPPRESSED)
_EXPIRED = "it has expired (expires_at): it is never sent"


def arrival_in_words(one: NotificationView) -> str:
    """Whether the message arrived, for somebody who answers the recipient's call; "" if the status already says
    it."""
    if one.status not in (Status.SENT, Status.DELIVERED):
        return ""
    if one.is_test:
        return "It was sent with a test key: nobody got it."
    if one.status == Status.DELIVERED:
        return "They got it, according to the provider."
    if one.channel == Channel.EMAIL:
        return (
            f"{one.provider} took the mail, and it has not come back: most likely it arrived. More cannot be "
            "known about a mail. The recipient can look in their spam folder."
        )
    return f"{one.provider} took the SMS, and has not said that it arrived. Their phone may be off."


def why_not_retried(seen: Seen) -> str:
    if seen.is_gone and seen.status in _ENDED:
        return _GONE
    match seen.status:
        case None:
            return NO_SUCH
        case Status.FAILED | Status.EXPIRED | Status.UNDELIVERED | Status.SUPPRESSED:
            return _EXPIRED
        case Status.SCHEDULED:
            return "scheduled: it waits for its time"
        case Status.QUEUED | Status.RETRYING:
            return f"{seen.status}: it is on its way already"
        case Status.SENDING | Status.DELIVERED:
            return status_in_words(seen.status)
        case Status.UNKNOWN:
            return "unknown: a provider may have it; resolve it instead"
        case Status.SENT:
            return f"{status_in_words(seen.status)}, and may still report that it arrived"
        case Status.CANCELLED:
            return "cancelled: it was stopped for good"
        case _:
            assert_never(seen.status)


def why_not_cancelled(seen: Seen) -> str:
    match seen.status:
        case None:
            return NO_SUCH
        case Status.SENDING:
            return f"{status_in_words(seen.status)}, and a call that has begun cannot be stopped"
        case Status.SENT | Status.DELIVERED | Status.UNDELIVERED:
            return f"{seen.status}: a provider took it, so it cannot be recalled"
        case Status.FAILED | Status.EXPIRED | Status.SUPPRESSED | Status.CANCELLED:
            return f"{seen.status}: it has ended already"
        case Status.SCHEDULED | Status.QUEUED | Status.RETRYING | Status.UNKNOWN:
            return f"{seen.status}: it changed in the meantime; try again"
        case _:
            assert_never(seen.status)


def why_not_rescheduled(send_at: datetime, seen: Seen) -> str:
    if seen.status is None:
        return NO_SUCH
    if seen.status is Status.RETRYING or (seen.is_tried and seen.status in (Status.SCHEDULED, Status.QUEUED)):
        return f"{seen.status}: it was tried already, so it keeps its time; cancel it, or let it go on"
    if seen.status is Status.UNKNOWN:
        return "unknown: a provider may have it; resolve it instead"
    if seen.status in (Status.SCHEDULED, Status.QUEUED) and seen.is_expired_at(send_at):
        return f"{seen.status}: its expires_at is not after that time; choose an earlier time"
    return why_not_cancelled(seen)


def why_not_resolved(seen: Seen) -> str:
    if seen.status is None:
        return NO_SUCH
    if seen.status is Status.UNKNOWN:
        return _GONE if seen.is_gone else _EXPIRED
    return f"{seen.status}: only an unknown outcome can be resolved"


#: Cause → why a notification is late, and what to do.
_LATE = {
    Cause.NOT_GIVEN_OUT: (
        "due for more than a minute, and not dispatched",
        "is Beat running, and a worker: notifier beat",
    ),
    Cause.NOT_TAKEN: (
        "given to the broker more than once, and no worker took it",
        "is a worker running for it, and fast enough: notifier worker --lanes {lane}",
    ),
    Cause.LEASE_OVER: (
        "its worker went away, and no sweep noticed",
        "is Beat running, and a worker: notifier beat",
    ),
    Cause.HELD: (
        "nobody can say whether the provider took it, and its template says to hold it",
        "ask the provider, then: notifier resolve ID --sent or --resend",
    ),
    Cause.RESTORED: (
        "on its way in the backup that the database was restored from, so it may have been sent since",
        "notifier db after-restore --release with conditions, or: notifier resolve ID --sent or --resend",
    ),
    Cause.PROVIDER_ACCOUNT: (
        "our account at the provider is at fault",
        "fix credentials, credit or registration: notifier doctor",
    ),
    Cause.SENDER_REFUSED: (
        "the provider refuses our sender identity",
        "have the provider verify or register it, or use another sender; then: notifier providers",
    ),
    Cause.NOT_CONFIGURED: (REASONS[Reason.NOT_CONFIGURED], "configure one: notifier doctor"),
    Cause.TEMPLATE_ERROR: ("its template is not usable", "fix it: notifier templates check"),
    Cause.PAUSED: ("an operator paused every provider of its channel", "notifier providers, then resume one"),
    Cause.RATE_LIMITED: (
        "it waits for its turn under a limit, a cap or a quota",
        "nothing, or raise the limit",
    ),
}


def late_in_words(late: Late) -> tuple[str, str]:
    """Why a notification is late, and what to do."""
    why, fix = _LATE[late.cause]
    return why, fix.format(lane=late.lane)


def resumed_in_words(provider: str, count: int, within_seconds: float) -> str:
    """What resuming a provider did."""
    if not count:
        return f"{provider} is in use again."
    waited = "1 notification that waited is" if count == 1 else f"{count} notifications that waited are"
    return f"{provider} is in use again: {waited} due within {within_seconds:.0f} s."


def circuit_in_words(circuit: CircuitState) -> tuple[str, str]:
    """Why a provider is not called, for everybody or for one sender; and what to do."""
    provider, sender = circuit.key.provider, circuit.key.sender
    resume = f"then: notifier providers resume {provider}"
    if sender:
        return (
            f"{provider} refuses the sender {sender}: its messages are held back there, other senders' go on",
            f"have {provider} verify or register it, or use another sender; {resume}",
        )
    if circuit.reason is Reason.PROVIDER_ACCOUNT:
        return f"{provider} refuses our account: nothing is sent through it", f"fix the account; {resume}"
    return (
        f"{provider} does not work: nothing is sent through it",
        "nothing, if it comes back: it is tried again automatically; otherwise: notifier doctor",
    )


def unfound_in_words(uses: Sequence[HashKeyUse], fingerprint: str) -> tuple[str, str] | None:
    """What a search by address misses under this hash key, and the fix; None: nothing that we know of."""
    others = [use for use in uses if use.fingerprint != fingerprint]
    if not others:
        return None
    names = ", ".join(use.fingerprint for use in others)
    if len(others) == len(uses):
        what = f"no notification was accepted under this hash key ({fingerprint}): none is found by its address"
        return what, f"set NOTIFIER_HASH_KEY to that of the service, whose fingerprint is {names}"
    until = max(use.last_used_at for use in others)
    what = (
        f"notifications accepted up to {until:%Y-%m-%d} under another hash key ({names}) are not found by their "
        "address"
    )
    return what, "search under that key as well, or recreate all hashes: `notifier db reseal --rehash`"
