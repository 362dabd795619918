"""Which providers may be called now. What one worker learns about a provider, the others know a second later."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from threading import Lock

from notifier.delivery.calling import Call
from notifier.errors import SendError
from notifier.providers.base import Receipt
from notifier.routing import WINDOW_SECONDS, Health, Route, Standing, is_fault, pause_after, route
from notifier.status import Channel, Outcome, Reason
from notifier.store.health import HealthBook, Tally
from notifier.telemetry import log

#: What is known of the providers may be this old. Seconds.
FRESH_SECONDS = 1.0


class Circuits:
    """Routes notifications and learns from their calls. Thread-safe; one a process."""

    def __init__(
        self,
        book: HealthBook,
        configured: Mapping[Channel, Sequence[str]],
        weights: Mapping[str, int],
        *,
        deadline_seconds: float,
    ) -> None:
        self._book = book
        self._configured = configured
        self._weights = weights
        self._deadline_seconds = deadline_seconds
        self._lock = Lock()
        self._standings: dict[str, Standing] = {}
        self._read_at = float("-inf")
        #: (provider, outcome, is fault) → (calls, seconds), not yet in the database.
        self._tallies: defaultdict[tuple[str, Outcome, bool], list[float]] = defaultdict(lambda: [0, 0.0])
        self._noted_at = time.monotonic()

    def routes(self, channel: Channel, count: int) -> list[Route]:
        """Routes for `count` notifications of a channel.

        If a provider's pause is over, the first of them probes it, unless another worker's does already.
        """
        standings = self._current()
        configured = self._configured.get(channel, ())
        routes = [
            route(configured, self._weights, standings, [random.random() for _ in configured])  # noqa: S311
            for _ in range(count)
        ]
        for name in configured:
            standing = standings.get(name)
            if routes and standing and standing.wants_probe and self._take_probe(name):
                routes[0] = Route((name, *routes[0].providers), probe=name)
                break
        return routes

    def _is_open(self, provider: str) -> bool:
        standing = self._standings.get(provider)
        return standing is not None and standing.open_for_seconds is not None

    def note(self, calls: Sequence[Call]) -> None:
        """Learn from calls that have ended."""
        urgent = False
        with self._lock:
            for call in calls:
                outcome, fault = _judge(call)
                tally = self._tallies[call.provider.name, outcome, fault]
                tally[0] += 1
                tally[1] += call.seconds
                urgent = urgent or fault or call.is_probe
            if not urgent and time.monotonic() - self._noted_at < FRESH_SECONDS:
                return
            tallies = [
                Tally(provider, outcome, fault, int(count), seconds)
                for (provider, outcome, fault), (count, seconds) in self._tallies.items()
            ]
            self._tallies.clear()
            self._noted_at = time.monotonic()
        windows = self._book.note(tallies, window_seconds=WINDOW_SECONDS)
        for call in calls:
            self._judge_probe_or_account(call)
        for window in windows:
            health = Health(window.calls, window.faults, window.seconds)
            if health.is_bad and not self._is_open(window.provider):
                share = f"{window.faults} of {window.calls} calls failed within {WINDOW_SECONDS:g} s"
                self._open(window.provider, Reason.PROVIDER_UNAVAILABLE, share, again=False)

    def _judge_probe_or_account(self, call: Call) -> None:
        outcome, fault = _judge(call)
        name = call.provider.name
        if call.is_probe and not fault and outcome is not Outcome.THROTTLED:
            if self._book.close(name):
                log.info("provider.circuit_closed", provider=name)
            self._read_at = float("-inf")
        elif (
            fault
            and isinstance(call.answer, SendError)
            and (call.is_probe or call.answer.reason is Reason.PROVIDER_ACCOUNT)
        ):
            self._open(name, call.answer.reason, call.answer.detail, again=call.is_probe)

    def _open(self, provider: str, reason: Reason, detail: str, *, again: bool) -> None:
        standing = self._standings.get(provider, Standing(provider))
        pause = pause_after(reason, standing.openings + 1)
        if self._book.open(provider, pause, reason, detail, again=again):
            log.warning("provider.circuit_opened", provider=provider, reason=reason, seconds=pause)
        self._read_at = float("-inf")

    def _take_probe(self, provider: str) -> bool:
        taken = self._book.take_probe(provider, lease_seconds=self._deadline_seconds + 10)
        if taken:
            log.info("provider.probe", provider=provider)
        return taken

    def _current(self) -> dict[str, Standing]:
        if time.monotonic() - self._read_at < FRESH_SECONDS:
            return self._standings
        states = self._book.states()
        slow = {
            window.provider
            for window in self._book.windows(window_seconds=WINDOW_SECONDS)
            if Health(window.calls, window.faults, window.seconds).is_slow(self._deadline_seconds)
        }
        self._standings = {
            name: Standing(
                name,
                states[name].paused if name in states else False,
                states[name].weight if name in states else None,
                states[name].open_for_seconds if name in states else None,
                states[name].reason if name in states else None,
                states[name].openings if name in states else 0,
                name in slow,
            )
            for name in {*states, *slow}
        }
        self._read_at = time.monotonic()
        return self._standings


def _judge(call: Call) -> tuple[Outcome, bool]:
    if call.answer is None or isinstance(call.answer, Receipt):
        return Outcome.ACCEPTED, False
    answer = call.answer
    if answer.reason in (Reason.LEASE_EXPIRED, Reason.TECHNICAL_ERROR):
        return answer.outcome, False
    return answer.outcome, is_fault(answer.outcome, answer.reason, answer.code)
