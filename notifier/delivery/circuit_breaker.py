"""Which providers may be called now, and for whom. Workers learn from each other within a second.

A provider has a circuit. So has each sender identity that it refuses: while that one is open, messages of this
sender are held back there, and no others. `domain.routing` says when circuits open and for how long;
`store.circuits` keeps them for all workers.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from threading import Lock

from notifier.config.logs import log
from notifier.delivery.delivery import Delivery
from notifier.domain.destinations import destination_of
from notifier.domain.errors import Rejected, SendError, Unavailable
from notifier.domain.routing import (
    LAST_CHANCES,
    PROBE_GRACE_SECONDS,
    SENDER_REFUSALS,
    WINDOW_SECONDS,
    Candidate,
    Health,
    Route,
    Standing,
    closes_circuit,
    held,
    is_drawn,
    is_fault,
    pause_after,
    route,
)
from notifier.domain.statuses import Channel, Outcome, Reason, Subject
from notifier.providers.base import Receipt
from notifier.store.circuits import CircuitKey, CircuitRefusal, CircuitRepository
from notifier.store.provider_health import HealthCounts, HealthRepository, HealthWindow

#: Maximum age of what is known of the providers. Seconds.
FRESH_SECONDS = 1.0
#: A probe's lease is longer than the deadline of its call by this. Seconds.
_PROBE_MARGIN_SECONDS = 10.0


class CircuitBreaker:
    """Routes notifications and learns from their calls. Thread-safe; one per process."""

    def __init__(
        self,
        health: HealthRepository,
        repository: CircuitRepository,
        configured: Mapping[Channel, Sequence[str]],
        weights: Mapping[str, int],
        *,
        deadline_seconds: float,
    ) -> None:
        self._health = health
        self._repository = repository
        self._configured = configured
        self._weights = weights
        self._deadline_seconds = deadline_seconds
        self._lock = Lock()
        #: Provider → what is known about it.
        self._standings: dict[str, Standing] = {}
        #: The same for a sender that was refused there lately.
        self._sender_standings: dict[CircuitKey, Standing] = {}
        #: Senders refused lately, in any process: if one is accepted, that is news.
        self._refused: set[CircuitKey] = set()
        self._read_at = float("-inf")
        #: (provider, outcome, is fault) → (calls, seconds), not yet in the database.
        self._tallies: defaultdict[tuple[str, Outcome, bool], list[float]] = defaultdict(lambda: [0, 0.0])
        #: Key → its last acceptance, not yet in the database.
        self._accepted: dict[CircuitKey, float] = {}
        self._noted_at = time.monotonic()

    def routes(self, channel: Channel, candidates: Sequence[Candidate]) -> list[Route]:
        """A route for each of these notifications of a channel. Where a pause is over, one of them probes, unless
        another worker's does already. A few that have no time left to wait for that call a provider in any case.
        """
        self._refresh()
        configured = self._configured.get(channel, ())
        by_sender = {sender: self._routes_of(configured, sender) for sender in {one.sender for one in candidates}}
        routes = [next(by_sender[one.sender]) for one in candidates]
        for name in configured:
            self._probe(name, configured, candidates, routes)
        self._give_last_chances(configured, candidates, routes)
        return routes

    def _routes_of(self, configured: Sequence[str], sender: str) -> Iterator[Route]:
        """Routes for notifications of one sender, before any probe; without weights all have the same."""
        standings = {name: self._standing(name, sender) for name in configured}
        has_one_route = not is_drawn(self._weights, standings.values())
        while True:
            draws = [random.random() for _ in configured]  # noqa: S311 - spreads load, keeps no secret
            found = route(configured, self._weights, standings, draws)
            yield from repeat(found) if has_one_route else (found,)

    def _standing(self, provider: str, sender: str) -> Standing:
        own = self._standings.get(provider, Standing(provider))
        return held(own, self._sender_standings.get(CircuitKey(provider, sender)))

    def _probe(
        self, provider: str, configured: Sequence[str], candidates: Sequence[Candidate], routes: list[Route]
    ) -> None:
        """Let one of them probe the provider, and one of each sender that is held back there."""
        asked: set[CircuitKey] = set()
        by_sender = {sender: self._standing(provider, sender) for sender in {one.sender for one in candidates}}
        if not any(standing.wants_probe for standing in by_sender.values()):
            return
        standings = [by_sender[one.sender] for one in candidates]
        # Untried ones first: they may get another answer.
        order = sorted(range(len(candidates)), key=lambda n: not candidates[n].is_fresh(standings[n]))
        for index in order:
            one, standing = candidates[index], standings[index]
            if not standing.wants_probe or routes[index].probe or one.id in standing.probers:
                continue
            keys = self._open_keys(provider, one.sender)
            if not asked.intersection(keys) and self._take_probes(keys, one, is_fresh=one.is_fresh(standing)):
                providers = (provider, *routes[index].providers)
                routes[index] = Route(providers, probe=provider, is_partial=len(providers) < len(configured))
            asked.update(keys)

    def _open_keys(self, provider: str, sender: str) -> list[CircuitKey]:
        """Keys of the open circuits between this sender and the provider, the provider's own first."""
        key = CircuitKey(provider, sender)
        both = ((CircuitKey(provider), self._standings.get(provider)), (key, self._sender_standings.get(key)))
        return [key for key, standing in both if standing and standing.open_for_seconds is not None]

    def _take_probes(self, keys: Sequence[CircuitKey], one: Candidate, *, is_fresh: bool) -> bool:
        lease = self._deadline_seconds + _PROBE_MARGIN_SECONDS
        # The sender first: a probe of it that is refused must not use up the provider's.
        for key in reversed(keys):
            if not self._repository.take_probe(
                key, one.id, lease_seconds=lease, grace_seconds=PROBE_GRACE_SECONDS, is_fresh=is_fresh
            ):
                return False
        if keys:
            log.info("provider.probe", provider=keys[0].provider, sender=keys[-1].sender)
        return bool(keys)

    def _give_last_chances(
        self, configured: Sequence[str], candidates: Sequence[Candidate], routes: list[Route]
    ) -> None:
        left, early = LAST_CHANCES, 1
        for index, one in enumerate(candidates):
            if routes[index].providers or not one.is_last_chance:
                continue
            standings = [self._standing(name, one.sender) for name in configured]
            open_ = [standing for standing in standings if not standing.paused]
            # Those that called a provider already have an answer to show.
            allowed = left if one.is_untried else early
            if not open_ or allowed <= 0:
                continue
            left, early = (left - 1, early) if one.is_untried else (left, early - 1)
            soonest = min(open_, key=lambda standing: standing.open_for_seconds or 0.0).provider
            routes[index] = Route((soonest,), probe=soonest, is_partial=len(configured) > 1)

    def note(self, deliveries: Sequence[Delivery]) -> None:
        """Learn from calls that have ended."""
        with self._lock:
            news = [self._count(delivery) for delivery in deliveries]
            if not any(news) and time.monotonic() - self._noted_at < FRESH_SECONDS:
                return
            tallies = [
                HealthCounts(provider, outcome, fault, int(count), seconds)
                for (provider, outcome, fault), (count, seconds) in self._tallies.items()
            ]
            accepted, self._accepted = self._accepted, {}
            self._tallies.clear()
            self._noted_at = time.monotonic()
        if accepted:
            self._accept(accepted)
        windows = self._health.note(tallies, window_seconds=WINDOW_SECONDS)
        for delivery in _without_repeats(deliveries):
            self._learn(delivery)
        for window in windows:
            self._judge(window)

    def _count(self, delivery: Delivery) -> bool:
        """Count a call. Returns whether the other workers must hear of it at once."""
        answer, fault, key = delivery.answer, _is_fault(delivery), _sender_key(delivery)
        outcome = answer.outcome if isinstance(answer, SendError) else Outcome.ACCEPTED
        tally = self._tallies[delivery.provider, outcome, fault]
        tally[0] += 1
        tally[1] += delivery.seconds
        if outcome is Outcome.ACCEPTED:
            self._accepted[key] = time.monotonic()
            is_news = key in self._refused
        else:
            is_news = _is_about_sender(delivery)
            if is_news:
                self._refused.add(key)
        return is_news or fault or delivery.is_probe

    def _judge(self, window: HealthWindow) -> None:
        """Open a provider's circuit if too many of its latest calls failed."""
        health = Health(window.calls, window.faults, window.seconds)
        if health.is_bad and not self._is_open(window.provider):
            share = f"{window.faults} of {window.calls} calls failed within {WINDOW_SECONDS:g} s"
            self._open(CircuitKey(window.provider), Reason.PROVIDER_UNAVAILABLE, share, None)

    def settled(self, delivery: Delivery) -> Receipt | SendError | None:
        """Its answer. One that may be about the sender or the destination is about the destination if the provider
        accepted other messages of the sender meanwhile."""
        answer = delivery.answer
        if not (isinstance(answer, Unavailable) and answer.is_doubtful):
            return answer
        with self._lock:
            accepted, self._accepted = self._accepted, {}
        if accepted:
            self._accept(accepted)
        if not self._repository.accepted_since_refused(_sender_key(delivery), delivery.notification.id):
            return answer
        return Rejected(
            answer.detail, code=answer.code, reason=Reason.DESTINATION_REFUSED, subject=Subject.DESTINATION
        )

    def _accept(self, accepted: Mapping[CircuitKey, float]) -> None:
        now = time.monotonic()
        self._repository.accept([(key, now - at) for key, at in accepted.items()])
        if not self._refused.isdisjoint(accepted):
            self._refused.difference_update(accepted)
            self._read_at = float("-inf")

    def _learn(self, delivery: Delivery) -> None:
        """Learn from a single answer: to a probe, about an account, about a sender."""
        name, answer = delivery.provider, delivery.answer
        if delivery.is_probe and _closes(delivery):
            self._close(CircuitKey(name))
            if not _is_refused_sender(delivery):
                self._close(_sender_key(delivery))
        if not isinstance(answer, SendError):
            return
        if _is_refused_sender(delivery):
            self._refuse(delivery, answer)
            return
        # Whether it probed the provider itself, and not one sender there.
        has_probed = delivery.is_probe and self._is_open(name)
        if _is_fault(delivery) and (answer.reason is Reason.PROVIDER_ACCOUNT or has_probed):
            self._open(CircuitKey(name), answer.reason, answer.detail, delivery)

    def _refuse(self, delivery: Delivery, answer: SendError) -> None:
        key = _sender_key(delivery)
        standing = self._sender_standings.get(key)
        destination = _doubtful_destination(delivery)
        known = standing.refused_destinations if standing else frozenset()
        is_repeated = _is_tried(delivery) or destination in known
        pause = pause_after(answer.reason, self._openings(standing, is_repeated=is_repeated))
        detail = " ".join(filter(None, (answer.code, answer.detail)))
        refusal = CircuitRefusal(delivery.notification.id, answer.reason, detail, destination, is_repeated)
        if self._repository.refuse(key, pause, refusal, at_most=SENDER_REFUSALS):
            log.warning("provider.sender_held", provider=key.provider, sender=key.sender, seconds=pause)
        self._read_at = float("-inf")

    def _open(self, key: CircuitKey, reason: Reason, detail: str, delivery: Delivery | None) -> None:
        is_repeated = delivery is not None and _is_tried(delivery)
        pause = pause_after(reason, self._openings(self._standings.get(key.provider), is_repeated=is_repeated))
        by = delivery.notification.id if delivery else None
        again = delivery is not None and delivery.is_probe
        if self._repository.open(key, pause, reason, detail, by=by, again=again, is_repeated=is_repeated):
            log.warning("provider.circuit_opened", provider=key.provider, reason=reason, seconds=pause)
        self._read_at = float("-inf")

    def _close(self, key: CircuitKey) -> None:
        if self._repository.close(key):
            log.info("provider.circuit_closed", provider=key.provider, sender=key.sender)
        self._read_at = float("-inf")

    def _is_open(self, provider: str) -> bool:
        standing = self._standings.get(provider)
        return standing is not None and standing.open_for_seconds is not None

    def _openings(self, standing: Standing | None, *, is_repeated: bool) -> int:
        """How often in a row it opened, with this time. An answer that was known already does not count."""
        return (0 if is_repeated else 1) + (standing.openings if standing else 0)

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at < FRESH_SECONDS:
            return
        by_operators = self._health.states()
        slow = {
            window.provider
            for window in self._health.windows(window_seconds=WINDOW_SECONDS)
            if Health(window.calls, window.faults, window.seconds).is_slow(self._deadline_seconds)
        }
        standings: dict[str, Standing] = {}
        for name in {*by_operators, *slow}:
            setting = by_operators.get(name)
            standings[name] = Standing(
                name,
                paused=setting is not None and setting.paused,
                weight=setting.weight if setting else None,
                is_slow=name in slow,
            )
        sender_standings: dict[CircuitKey, Standing] = {}
        for state in self._repository.states():
            known = standings.get(state.key.provider, Standing(state.key.provider))
            found = replace(
                known,
                open_for_seconds=state.open_for_seconds,
                reason=state.reason,
                openings=state.openings,
                probers=state.probers,
                refused_destinations=state.refused_destinations,
            )
            if state.key.sender:
                sender_standings[state.key] = found
            else:
                standings[state.key.provider] = found
        self._standings, self._sender_standings = standings, sender_standings
        self._refused.update(sender_standings)
        self._read_at = time.monotonic()


def _sender_key(delivery: Delivery) -> CircuitKey:
    return CircuitKey(delivery.provider, delivery.content.identity)


def _without_repeats(deliveries: Sequence[Delivery]) -> Iterator[Delivery]:
    """Leave out answers that only repeat what others say about their sender: a whole batch may be refused."""
    refused: Counter[CircuitKey] = Counter()
    destinations: set[tuple[CircuitKey, str]] = set()
    for delivery in deliveries:
        if _is_refused_sender(delivery) and not delivery.is_probe:
            key, destination = _sender_key(delivery), _doubtful_destination(delivery)
            if refused[key] >= SENDER_REFUSALS or (key, destination) in destinations:
                continue
            refused[key] += 1
            if destination:
                destinations.add((key, destination))
        yield delivery


def _doubtful_destination(delivery: Delivery) -> str:
    """Its destination, if the answer may be about that; otherwise ""."""
    if not (isinstance(delivery.answer, Unavailable) and delivery.answer.is_doubtful):
        return ""
    return destination_of(delivery.notification.channel, delivery.notification.recipient)


def _is_tried(delivery: Delivery) -> bool:
    """Whether a provider was called for it in an earlier turn."""
    return delivery.notification.tries > 0


def _is_ours(answer: SendError) -> bool:
    """Whether no call was made, or our code failed in it."""
    return answer.reason in (Reason.LEASE_EXPIRED, Reason.TECHNICAL_ERROR)


def _is_fault(delivery: Delivery) -> bool:
    answer = delivery.answer
    if not isinstance(answer, SendError) or _is_ours(answer):
        return False
    return is_fault(answer.outcome, answer.subject, answer.reason, answer.code)


def _closes(delivery: Delivery) -> bool:
    answer = delivery.answer
    if not isinstance(answer, SendError):
        return True
    return not _is_ours(answer) and closes_circuit(answer.outcome, answer.subject, answer.reason, answer.code)


def _is_refused_sender(delivery: Delivery) -> bool:
    answer = delivery.answer
    return (
        isinstance(answer, SendError)
        and answer.subject is Subject.SENDER
        and answer.reason is Reason.SENDER_REFUSED
    )


def _is_about_sender(delivery: Delivery) -> bool:
    """Whether it matters that the next one of this sender is accepted."""
    answer = delivery.answer
    return _is_refused_sender(delivery) or (isinstance(answer, Unavailable) and answer.is_doubtful)
