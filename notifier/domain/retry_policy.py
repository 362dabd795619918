"""Decides what follows when a provider did not accept: (error, lane, age) → next status and pause. Pure; no I/O.

    pause = max(random between 0 and min(max_seconds, first_seconds · 2^(n-1)), what the provider asked for)

This is exponential back-off with full jitter
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from notifier.domain.errors import OutcomeUnknown, Rejected, SendError, Throttled, Unavailable
from notifier.domain.routing import LAST_CHANCE_SECONDS
from notifier.domain.statuses import Lane, Reason, Status

#: How long an unknown outcome waits for a late answer. Then it is looked up, and the policy decides. Seconds.
UNKNOWN_AFTER_SECONDS = 30.0
#: A notification that waits for the circuit of a provider comes back by itself after half of this to all of it.
#: The sweep wakes it earlier if a provider can be called. Seconds.
ASLEEP_SECONDS = 3600.0
#: No pause is shorter: with almost no jitter, a refusing provider would be called in a tight loop. Seconds.
MIN_PAUSE_SECONDS = 0.5

#: Reasons that are our fault, not the message's: they use up its deadline, but not its attempts.
_OURS = (
    Reason.PROVIDER_ACCOUNT,
    Reason.SENDER_REFUSED,
    Reason.NOT_CONFIGURED,
    Reason.TEMPLATE_ERROR,
    Reason.TECHNICAL_ERROR,
    Reason.OPERATOR,
    # No provider was called.
    Reason.LEASE_EXPIRED,
)


class LaneRetry(BaseModel):
    """One `[retry.<lane>]` of notifier.toml: exponential back-off with full jitter, within a total deadline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Upper bound of the first pause; the bound doubles with each attempt.
    first_seconds: Annotated[float, Field(gt=0)]
    #: Upper bound of every pause.
    max_seconds: Annotated[float, Field(gt=0)]
    #: A failure is final if the notification was due longer ago than this.
    deadline_seconds: Annotated[float, Field(gt=0)]
    #: Maximum number of attempts since it was accepted or requeued.
    max_attempts: Annotated[int, Field(ge=1)]


#: A one-time code is useful for minutes, a receipt for hours, a digest for a day.
DEFAULT_RETRIES: Mapping[Lane, LaneRetry] = {
    Lane.URGENT: LaneRetry(first_seconds=2, max_seconds=30, deadline_seconds=600, max_attempts=20),
    Lane.NORMAL: LaneRetry(first_seconds=15, max_seconds=900, deadline_seconds=6 * 3600, max_attempts=40),
    Lane.BULK: LaneRetry(first_seconds=60, max_seconds=3600, deadline_seconds=24 * 3600, max_attempts=40),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to a notification after an attempt without a receipt."""

    status: Status
    reason: Reason
    #: Time until the next step. None: nothing happens by itself.
    due_in_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decision depends on besides the error."""

    #: Attempts since it was accepted or requeued, this one included; from 1.
    attempt: int
    #: Time since the notification was first due.
    age_seconds: float
    #: Time until `expires_at`. None: it does not expire.
    seconds_to_expiry: float | None
    #: A random number from [0, 1), passed in so that this module stays pure.
    jitter: float
    #: No provider has been called for it since it was accepted or requeued.
    is_untried: bool = False

    def seconds_left(self, policy: LaneRetry) -> float:
        """Seconds until it is given up or expires."""
        left = policy.deadline_seconds - self.age_seconds
        return left if self.seconds_to_expiry is None else min(left, self.seconds_to_expiry)


def decide(error: SendError, policy: LaneRetry, situation: Situation) -> Decision:
    match error:
        case Rejected(reason=Reason.EXPIRED):
            return Decision(Status.EXPIRED, Reason.EXPIRED)
        case Rejected():
            return Decision(Status.FAILED, error.reason)
        case OutcomeUnknown():
            # First it is looked up, if the provider can be asked. Then the template's policy decides.
            return Decision(Status.UNKNOWN, error.reason, UNKNOWN_AFTER_SECONDS)
        case Throttled() | Unavailable():
            return _try_again(error, policy, situation)
        case _:
            return Decision(Status.FAILED, Reason.TECHNICAL_ERROR)


def wait_for_circuit(reason: Reason, opens_in_seconds: float, policy: LaneRetry, situation: Situation) -> Decision:
    """The decision if every circuit is open, or its sender is held back. It comes back in time for its last
    chance. If it waits for its sender, it comes back when the sender may be probed. All others sleep until
    `CircuitRepository.wake` wakes them. If no provider was called for it, it is not given up here."""
    left = situation.seconds_left(policy)
    if situation.seconds_to_expiry is not None and situation.seconds_to_expiry <= 0:
        return Decision(Status.EXPIRED, reason)
    if left <= 0 and not situation.is_untried:
        return Decision(Status.FAILED, reason)
    if reason is Reason.SENDER_REFUSED:
        pause = min(opens_in_seconds, policy.max_seconds) + situation.jitter * min(policy.first_seconds, 10.0)
    else:
        pause = ASLEEP_SECONDS * (1 - situation.jitter / 2)
    latest = left - LAST_CHANCE_SECONDS
    if latest <= 0 and not situation.is_untried:
        latest = left  # it had its last chance, and is given up
    return Decision(Status.RETRYING, reason, max(MIN_PAUSE_SECONDS, min(pause, latest)))


def _try_again(error: Throttled | Unavailable, policy: LaneRetry, situation: Situation) -> Decision:
    attempt = situation.attempt
    if error.reason in _OURS:
        # There are no attempts to count by, so the pause grows with the time that it has waited.
        attempt = max(attempt, 1 + int(log2(1 + situation.age_seconds / policy.first_seconds)))
    pause = pause_seconds(policy, attempt, situation.jitter, error.retry_after_seconds)
    if situation.seconds_to_expiry is not None and pause >= situation.seconds_to_expiry:
        return Decision(Status.EXPIRED, error.reason)
    used_up = situation.attempt >= policy.max_attempts and error.reason not in _OURS
    if used_up or situation.age_seconds + pause > policy.deadline_seconds:
        return Decision(Status.FAILED, error.reason)
    return Decision(Status.RETRYING, error.reason, pause)


def pause_seconds(policy: LaneRetry, attempt: int, jitter: float, asked_seconds: float | None) -> float:
    """Pause after the `attempt`-th failure, from 1. Never shorter than what the provider asked for. Seconds."""
    ceiling = min(policy.max_seconds, policy.first_seconds * 2.0 ** min(attempt - 1, 30))
    return max(MIN_PAUSE_SECONDS, ceiling * jitter, asked_seconds or 0.0)
