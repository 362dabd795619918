"""Decides which providers are called, in which order, and whether a circuit opens. Pure functions; no I/O.

A circuit keeps a provider from being called while calls to it are bound to fail. It opens on faults of the
provider itself or of our account there, never on answers about a recipient, a destination, a text or a sender.
After a pause one notification at a time may probe the provider; an answer about anything else closes the circuit.
A sender that a provider refuses has a circuit of its own there, which holds back only that sender's messages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from notifier.domain.record import record
from notifier.domain.statuses import Outcome, Reason, Subject

#: Health is judged by the calls within this time. Seconds.
WINDOW_SECONDS = 60.0
#: With fewer calls, the share of faults means nothing.
MIN_CALLS = 10
#: A share of faults from this on opens the circuit.
MAX_FAULTS = 0.5
#: Pause after the first opening. It doubles with each further opening without a success in between. Seconds.
FIRST_PAUSE_SECONDS = 10.0
MAX_PAUSE_SECONDS = 300.0
#: The same for wrong credentials, no credit, a refused sender, which people have to fix. Seconds.
FIRST_ACCOUNT_PAUSE_SECONDS = 30.0
MAX_ACCOUNT_PAUSE_SECONDS = 900.0
#: If a provider refuses this many messages in a row for their sender, the sender's other messages wait. A single
#: answer may be about its destination.
SENDER_REFUSALS = 3
#: The detail of messages that wait for the circuit of a provider; the sweep finds them by it. `{}`: the channel.
NO_PROVIDER_NOW = "no provider for {} can be called now; it goes on when one can: see `notifier providers`"
#: If a message is given up or expires within this time, it calls a provider although its circuit is open. So
#: nothing is given up while everybody waits for somebody else to try. Seconds.
LAST_CHANCE_SECONDS = 15.0
#: Maximum number of these messages in one batch. The others come again in a moment.
LAST_CHANCES = 20
#: A notification that was tried before probes only if no fresh one came for this long; doubles with each probe.
#: Seconds.
PROBE_GRACE_SECONDS = 10.0
#: If a provider's calls take more than this share of their deadline on average, faster providers go first.
SLOW_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Standing:
    """What all workers together know about one provider."""

    provider: str
    paused: bool = False
    #: Share of the traffic, if weights are used. None: the configured one.
    weight: int | None = None
    #: None: the circuit is closed. Above 0: it stays open for this long. 0 or less: a probe is due.
    open_for_seconds: float | None = None
    reason: Reason | None = None
    #: Number of openings in a row.
    openings: int = 0
    #: It answers, but slowly.
    is_slow: bool = False
    #: The notifications whose calls opened or probed the circuit: none of them probes again.
    probers: frozenset[UUID] = frozenset()
    #: Destinations of the sender's refused messages: a message to another destination is a better probe.
    refused_destinations: frozenset[str] = frozenset()

    @property
    def is_usable(self) -> bool:
        return not self.paused and self.open_for_seconds is None

    @property
    def wants_probe(self) -> bool:
        return not self.paused and self.open_for_seconds is not None and self.open_for_seconds <= 0


@record(frozen=True, slots=True)
class Candidate:
    """A notification that needs a route."""

    id: UUID
    #: Name of its sender identity.
    sender: str
    #: Seconds until it is given up or expires.
    seconds_left: float
    #: No provider was called for it since it was accepted or requeued.
    is_untried: bool
    #: Its domain or country.
    destination: str = ""

    def is_fresh(self, standing: Standing) -> bool:
        """Whether its answer may tell more than the known answers."""
        return self.is_untried and self.destination not in standing.refused_destinations

    @property
    def is_last_chance(self) -> bool:
        """Whether there is no time left to wait for another notification's probe."""
        return self.seconds_left <= LAST_CHANCE_SECONDS


@record(frozen=True, slots=True)
class Route:
    """The providers for one notification."""

    #: To be called in this order, each only if the one before surely did not take the message.
    providers: tuple[str, ...]
    #: The provider that is only called to find out whether it works again.
    probe: str | None = None
    #: If no provider can be called now: seconds to wait, and why.
    wait_seconds: float = 0.0
    reason: Reason = Reason.NOT_CONFIGURED
    #: A configured provider is left out now that may serve destinations which the others do not.
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """Calls to one provider within `WINDOW_SECONDS`."""

    calls: int = 0
    #: Number of calls that failed by the provider's own fault.
    faults: int = 0
    #: Total duration of the calls.
    seconds: float = 0.0

    @property
    def is_bad(self) -> bool:
        return self.calls >= MIN_CALLS and self.faults / self.calls >= MAX_FAULTS

    def is_slow(self, deadline_seconds: float) -> bool:
        return self.calls >= MIN_CALLS and self.seconds / self.calls > SLOW_SHARE * deadline_seconds


def is_fault(outcome: Outcome, subject: Subject, reason: Reason | None, code: str) -> bool:
    """Whether this answer counts against the circuit, because it is about the provider or our account there.

    No answer at all counts; so do 421 ("service not available, closing", RFC 5321 section 4.2.2) and an account
    that the provider does not serve.
    """
    if subject not in (Subject.ACCOUNT, Subject.PROVIDER):
        return False
    if outcome is Outcome.UNKNOWN or reason is Reason.PROVIDER_ACCOUNT:
        return True
    return outcome is Outcome.UNAVAILABLE and (not code or code.startswith("421"))


def closes_circuit(outcome: Outcome, subject: Subject, reason: Reason | None, code: str) -> bool:
    """Whether this answer to a probe shows that the provider works again."""
    if subject not in (Subject.ACCOUNT, Subject.PROVIDER):
        return True
    return outcome is not Outcome.THROTTLED and not is_fault(outcome, subject, reason, code)


def pause_after(reason: Reason, openings: int) -> float:
    """How long the circuit stays open after its `openings`-th opening in a row, from 1. Seconds."""
    doubled = 2.0 ** min(max(openings, 1) - 1, 20)
    if reason in (Reason.PROVIDER_ACCOUNT, Reason.SENDER_REFUSED):
        return min(MAX_ACCOUNT_PAUSE_SECONDS, FIRST_ACCOUNT_PAUSE_SECONDS * doubled)
    return min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * doubled)


def held(standing: Standing, hold: Standing | None) -> Standing:
    """The standing of a provider for one sender. `hold` is the sender's own circuit there."""
    if hold is None or hold.open_for_seconds is None:
        return standing
    if standing.open_for_seconds is not None and standing.open_for_seconds >= hold.open_for_seconds:
        return standing
    return replace(
        standing,
        open_for_seconds=hold.open_for_seconds,
        reason=hold.reason,
        probers=standing.probers | hold.probers,
        refused_destinations=hold.refused_destinations,
    )


def route(
    configured: Sequence[str],
    weights: Mapping[str, int],
    standings: Mapping[str, Standing],
    draws: Sequence[float],
) -> Route:
    """The route of one notification.

    `configured` is the order of failover. If any weight is above 0, the order is drawn by weight instead. `draws`
    are random numbers from [0, 1), one for each provider, passed in so that this function stays pure.
    """
    known = [standings.get(name, Standing(name)) for name in configured]
    usable = [standing for standing in known if standing.is_usable]
    if not usable:
        return _waiting(known)
    weight = _weights_of(usable, weights)
    order = [standing.provider for standing in usable]
    if any(weight.values()):
        order = _drawn([name for name in order if weight[name] > 0], weight, draws)
    slow = {standing.provider for standing in usable if standing.is_slow}
    return Route(tuple(sorted(order, key=lambda name: name in slow)), is_partial=len(usable) < len(known))


def is_drawn(weights: Mapping[str, int], standings: Collection[Standing]) -> bool:
    """Whether weights are used, so that the routes of notifications differ."""
    return any(_weights_of(standings, weights).values())


def _weights_of(standings: Collection[Standing], weights: Mapping[str, int]) -> dict[str, int]:
    return {s.provider: weights.get(s.provider, 0) if s.weight is None else s.weight for s in standings}


def _drawn(names: Sequence[str], weight: Mapping[str, int], draws: Sequence[float]) -> list[str]:
    """Random order; heavier ones tend to come first (Efraimidis and Spirakis, 2006: sort by u^(1/w))."""
    keys = {name: draw ** (1 / weight[name]) for name, draw in zip(names, draws, strict=False)}
    return sorted(names, key=lambda name: keys[name], reverse=True)


def _waiting(known: Sequence[Standing]) -> Route:
    if not known:
        return Route(())
    opened = [s for s in known if s.open_for_seconds is not None and not s.paused]
    if not opened:
        return Route((), wait_seconds=FIRST_PAUSE_SECONDS, reason=Reason.OPERATOR)
    soonest = min(opened, key=lambda s: s.open_for_seconds or 0.0)
    reasons = [s.reason for s in opened]
    # Who waits for its sender is not woken when a provider can be called: perhaps one can be, by others.
    reason = Reason.SENDER_REFUSED if Reason.SENDER_REFUSED in reasons else soonest.reason
    return Route(
        (), wait_seconds=max(1.0, soonest.open_for_seconds or 0.0), reason=reason or Reason.PROVIDER_UNAVAILABLE
    )
