"""Which providers, in what order, and whether a circuit opens: pure functions of policy and health.

A circuit keeps a provider from being called while calls to it are bound to fail. It opens on what is the
provider's own fault or our account's there, never on answers about a recipient, a destination, a text or a sender;
after a pause one notification at a time may probe it, and an answer about anything else closes it. A sender that a
provider refuses has a circuit of its own there, which holds back its messages and no others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from notifier.domain.record import record
from notifier.domain.statuses import Outcome, Reason, Subject

#: Health is judged by the calls of this time. Seconds.
WINDOW_SECONDS = 60.0
#: With fewer calls a share of them means nothing.
MIN_CALLS = 10
#: This share of faults opens the circuit.
MAX_FAULTS = 0.5
#: First pause after an opening; doubles with each one that follows without a success between. Seconds.
FIRST_PAUSE_SECONDS = 10.0
MAX_PAUSE_SECONDS = 300.0
#: The same for wrong credentials, no credit, a refused sender: people fix those. Seconds.
FIRST_ACCOUNT_PAUSE_SECONDS = 30.0
MAX_ACCOUNT_PAUSE_SECONDS = 900.0
#: Messages in a row that a provider refuses for their sender before the sender's others wait: one answer may be
#: about its destination.
SENDER_REFUSALS = 3
#: The detail of messages that wait for the circuit of a provider: the sweep finds them by it. `{}`: the channel.
NO_PROVIDER_NOW = "no provider for {} can be called now; it goes on when one can: see `notifier providers`"
#: A message that is given up within this, or expires, calls a provider whose circuit is open: nothing is given up
#: while everybody waits for somebody else to try. Seconds.
LAST_CHANCE_SECONDS = 15.0
#: Number of those in one batch. The others come again in a moment.
LAST_CHANCES = 20
#: One that was tried before probes only if no fresh one came for so long; doubles with each probe. Seconds.
PROBE_GRACE_SECONDS = 10.0
#: A provider slower than this on the average is tried after faster ones. Share of the deadline of a call.
SLOW_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Standing:
    """What all workers together know about one provider."""

    provider: str
    paused: bool = False
    #: Share of the traffic, where weights are used; None: the configured one.
    weight: int | None = None
    #: None: the circuit is closed; above 0: open for so long; 0 or less: due for a probe.
    open_for_seconds: float | None = None
    reason: Reason | None = None
    #: Openings in a row.
    openings: int = 0
    #: It answers, but slowly.
    is_slow: bool = False
    #: The notifications whose calls opened the circuit, or probed it: none of them probes again.
    probers: frozenset[UUID] = frozenset()
    #: Where messages of its sender were refused: one to another destination is a better probe.
    refused_destinations: frozenset[str] = frozenset()

    @property
    def is_usable(self) -> bool:
        return not self.paused and self.open_for_seconds is None

    @property
    def wants_probe(self) -> bool:
        return not self.paused and self.open_for_seconds is not None and self.open_for_seconds <= 0


@record(frozen=True, slots=True)
class Candidate:
    """A notification that wants a route."""

    id: UUID
    #: Name of its sender identity.
    sender: str
    #: Until it is given up, or expires.
    seconds_left: float
    #: No provider was called for it since it was accepted or requeued.
    is_untried: bool
    #: Where it leads: a domain, a country.
    destination: str = ""

    def is_fresh(self, standing: Standing) -> bool:
        """Whether its answer may differ from those that are known."""
        return self.is_untried and self.destination not in standing.refused_destinations

    @property
    def is_last_chance(self) -> bool:
        """Whether there is no time to wait for another notification's probe."""
        return self.seconds_left <= LAST_CHANCE_SECONDS


@record(frozen=True, slots=True)
class Route:
    """The providers for one notification."""

    #: To be called in this order, while the one before surely did not take it.
    providers: tuple[str, ...]
    #: The one that is only called to find out whether it works again.
    probe: str | None = None
    #: If no provider can be called now: how long to wait, and why.
    wait_seconds: float = 0.0
    reason: Reason = Reason.NOT_CONFIGURED
    #: A configured provider is left out now, which may serve what the others do not.
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """Calls to one provider within `WINDOW_SECONDS`."""

    calls: int = 0
    #: Those that failed by its own fault.
    faults: int = 0
    #: Sum over the calls.
    seconds: float = 0.0

    @property
    def is_bad(self) -> bool:
        return self.calls >= MIN_CALLS and self.faults / self.calls >= MAX_FAULTS

    def is_slow(self, deadline_seconds: float) -> bool:
        return self.calls >= MIN_CALLS and self.seconds / self.calls > SLOW_SHARE * deadline_seconds


def is_fault(outcome: Outcome, subject: Subject, reason: Reason | None, code: str) -> bool:
    """Whether this answer touches the circuit: it says something about the provider or our account there.

    No answer at all is one; so is 421 ("service not available, closing", RFC 5321 section 4.2.2), and an account
    that it does not serve.
    """
    if subject not in (Subject.ACCOUNT, Subject.PROVIDER):
        return False
    if outcome is Outcome.UNKNOWN or reason is Reason.PROVIDER_ACCOUNT:
        return True
    return outcome is Outcome.UNAVAILABLE and (not code or code.startswith("421"))


def closes_circuit(outcome: Outcome, subject: Subject, reason: Reason | None, code: str) -> bool:
    """Whether this answer to a probe shows that the provider works."""
    if subject not in (Subject.ACCOUNT, Subject.PROVIDER):
        return True
    return outcome is not Outcome.THROTTLED and not is_fault(outcome, subject, reason, code)


def pause_after(reason: Reason, openings: int) -> float:
    """How long the circuit opens for the `openings`-th time in a row, from 1. Seconds."""
    doubled = 2.0 ** min(max(openings, 1) - 1, 20)
    if reason in (Reason.PROVIDER_ACCOUNT, Reason.SENDER_REFUSED):
        return min(MAX_ACCOUNT_PAUSE_SECONDS, FIRST_ACCOUNT_PAUSE_SECONDS * doubled)
    return min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * doubled)


def held(standing: Standing, hold: Standing | None) -> Standing:
    """The standing of a provider for one sender, whose own circuit there is `hold`."""
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

    `configured` is the order of failover; with any weight above 0, the order is drawn by weight instead. `draws`
    are random numbers from [0, 1), one for each provider: passed in, so that this stays pure.
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
    """Whether the routes of these providers differ from one notification to the next."""
    return any(_weights_of(standings, weights).values())


def _weights_of(standings: Collection[Standing], weights: Mapping[str, int]) -> dict[str, int]:
    return {s.provider: weights.get(s.provider, 0) if s.weight is None else s.weight for s in standings}


def _drawn(names: Sequence[str], weight: Mapping[str, int], draws: Sequence[float]) -> list[str]:
    """In random order, the heavier the earlier (Efraimidis and Spirakis, 2006: sort by u^(1/w))."""
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
