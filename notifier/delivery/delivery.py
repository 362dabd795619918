"""One notification on its way through delivery, and its permit to call a provider."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from notifier.delivery.prepare import Prepared
from notifier.domain.errors import Rejected, SendError, Unavailable
from notifier.domain.statuses import Lane, Outcome, Reason
from notifier.providers.base import Receipt
from notifier.store.records import DeliveryResult, NotificationToSend, Started

#: A call that starts later than this after its turn would coincide with later turns, so it takes a new turn.
#: Seconds; also the share by which a limit per second may be exceeded.
LATE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Units per second of one provider or one sender identity, as a lane sees it."""

    scope: str
    per_second: float
    lane: Lane


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to call: not before `not_before` on the monotonic clock, and not much later."""

    not_before: float = 0.0
    #: The rate limits in which it holds a turn, with the units it takes. Without any it is never late.
    turns: tuple[tuple[RateLimit, int], ...] = ()

    @property
    def is_late(self) -> bool:
        """Whether its turn has passed."""
        return bool(self.turns) and time.monotonic() > self.not_before + LATE_SECONDS


@dataclass(slots=True, eq=False, repr=False)
class Delivery:
    """One notification and what each step adds: content, route, permit, attempt, answer, result.

    It belongs to the thread of its task. The event loop gets a `ProviderCall` instead.
    """

    notification: NotificationToSend
    #: Its claim is committed, or may be because the answer was lost. False: it was only read.
    is_claimed: bool = True
    #: No call is under way and no result is being written. If its task fails now, it is given back.
    is_unstarted: bool = True
    content: Prepared = field(init=False)
    #: What is left of its route; the first provider is the next to call.
    providers: tuple[str, ...] = ()
    #: See `Route.probe`.
    probe: str | None = None
    #: A provider may still accept it later: one that is not called now, or one whose refusal was not final.
    has_hope: bool = False
    #: Number of calls already made under its current claim.
    earlier: int = 0
    permit: Permit = field(default_factory=Permit)
    attempt: Started = field(init=False)
    answer: Receipt | SendError | None = None
    #: When the call began, on the monotonic clock.
    begun: float = 0.0
    #: Duration of the call.
    seconds: float = 0.0
    result: DeliveryResult | None = None

    @property
    def provider(self) -> str:
        """The provider whose turn it is."""
        return self.providers[0]

    @property
    def is_probe(self) -> bool:
        return self.provider == self.probe

    @property
    def was_called(self) -> bool:
        """Whether its provider was called, or may have been called."""
        return not (isinstance(self.answer, Unavailable) and self.answer.reason is Reason.LEASE_EXPIRED)

    @property
    def is_accepted(self) -> bool:
        return isinstance(self.answer, Receipt)

    @property
    def outcome(self) -> Outcome:
        """The outcome of its call. Never raises, whatever a provider returned."""
        if isinstance(self.answer, Receipt):
            return Outcome.ACCEPTED
        found = getattr(self.answer, "outcome", None)
        return found if isinstance(found, Outcome) else Outcome.UNKNOWN

    def go_on(self) -> None:
        """Move to the next provider."""
        self.has_hope = self.has_hope or not isinstance(self.answer, Rejected)
        self.providers = self.providers[1:]
        self.earlier = self.attempt.number - self.notification.attempt_count
        self.answer, self.result, self.seconds = None, None, 0.0
        self.is_unstarted = True
