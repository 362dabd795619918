"""Limits before a call: rates of providers and senders, caps of recipients and prefixes, quotas of producers.

What is over a limit waits by its `due_at`: it neither fails nor holds a slot. Rates count segments of SMS.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from notifier.config.limits import Cap
from notifier.config.logs import log
from notifier.config.settings import Settings
from notifier.delivery.prepare import Prepared
from notifier.domain.statuses import Channel
from notifier.store.rate_limits import RateLimitRepository, Turn

#: A turn that begins within this is waited for in the process; a later one by `due_at`. Short, because an urgent
#: message stands behind those that wait. Seconds.
WAIT_SECONDS = 1.0
#: Turns are handed out this much slower than the limit: two calls may come a little closer than their turns.
SLACK = 0.97
#: A call that begins later than this after its turn would come on top of the turns of others: it takes a new one.
#: Seconds; of a limit a second, that is the share by which it may be exceeded.
LATE_SECONDS = 0.05
#: Nobody asks again sooner than this. Seconds.
MIN_LATER_SECONDS = 0.25
#: From this share of a quota on, producers are warned.
WARN_SHARE = 0.8

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class _Limit:
    scope: str
    per_second: float


@dataclass(frozen=True, slots=True)
class Go:
    """Leave to call: not before then on the monotonic clock, and not much later either."""

    not_before: float = 0.0
    #: What it holds a turn of, and how many units of it; without any it never is too late.
    turns: tuple[tuple[_Limit, int], ...] = ()

    @property
    def is_late(self) -> bool:
        """Whether its turn has passed."""
        return bool(self.turns) and time.monotonic() > self.not_before + LATE_SECONDS


class Pacer:
    """Thread-safe; one a process."""

    def __init__(self, book: RateLimitRepository, settings: Settings) -> None:
        self._book = book
        self._structure = settings.structure
        #: Asks the database for what is asked on the event loop: one at a time, in order.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="turns")
        self._provider_rates = {
            table.name: table.rate_per_second for table in settings.provider_tables() if table.rate_per_second
        }

    async def wait(self, go: Go) -> None:
        """Until the call may begin."""
        if go.turns:
            await asyncio.sleep(max(0.0, go.not_before - time.monotonic()))

    async def renew(self, go: Go) -> None:
        """Until the call may begin after all, if `go` has passed: with new turns for those that it has missed.

        A call misses its turn while its process stands still, or while all slots are taken. The turn is lost then:
        better a little under the limit than over it.

        Raises:
            ServiceUnavailable: the database is away.
        """
        while go.is_late:
            not_before = 0.0
            for limit, units in go.turns:
                not_before = max(not_before, await self._take_one(limit, units))
            go = Go(not_before, go.turns)
            await self.wait(go)

    async def _take_one(self, limit: _Limit, units: int) -> float:
        """When the next turn begins, on the monotonic clock."""
        while True:
            asked = asyncio.get_running_loop().run_in_executor(self._asking, self._ask, limit, [units])
            (turn,), answered_at = await asked
            if turn.is_granted:
                return answered_at + turn.in_seconds
            await asyncio.sleep(turn.in_seconds)

    def _ask(self, limit: _Limit, units: Sequence[int]) -> tuple[list[Turn], float]:
        """The next turns, and when they were answered: a little later than the database meant is right, a little
        earlier is not."""
        turns = self._book.take_turns(
            limit.scope, units, per_second=limit.per_second * SLACK, at_most_seconds=WAIT_SECONDS
        )
        return turns, time.monotonic()

    def turns(self, items: Sequence[tuple[Prepared, str]]) -> tuple[dict[int, Go], dict[int, float]]:
        """For each position: leave to call, or how many seconds it has to wait.

        Raises:
            ServiceUnavailable: the database is away.
        """
        begins = dict.fromkeys(range(len(items)), Go())
        later: dict[int, float] = {}
        for limit, positions in self._limits(items).items():
            waiting = [position for position in positions if position in begins]
            self._take(limit, waiting, items, begins, later)
        for position in list(begins):
            wait = self._over_cap(items[position][0])
            if wait is not None:
                later[position] = max(MIN_LATER_SECONDS, wait)
                del begins[position]
        return begins, later

    def _take(
        self,
        limit: _Limit,
        positions: Sequence[int],
        items: Sequence[tuple[Prepared, str]],
        begins: dict[int, Go],
        later: dict[int, float],
    ) -> None:
        if not positions:
            return
        turns, answered_at = self._ask(limit, [items[position][0].units for position in positions])
        for position, turn in zip(positions, turns, strict=True):
            if turn.is_granted:
                go = begins[position]
                begins[position] = Go(
                    max(go.not_before, answered_at + turn.in_seconds),
                    (*go.turns, (limit, items[position][0].units)),
                )
            else:
                later[position] = max(MIN_LATER_SECONDS, turn.in_seconds)
                del begins[position]

    def _limits(self, items: Sequence[tuple[Prepared, str]]) -> Mapping[_Limit, list[int]]:
        found: defaultdict[_Limit, list[int]] = defaultdict(list)
        for position, (prepared, provider) in enumerate(items):
            if prepared.claim.is_test:
                continue
            rate = self._provider_rates.get(provider)
            if rate:
                found[_Limit(f"provider:{provider}", rate)].append(position)
            identity = self._structure.senders.get(prepared.identity)
            if identity and identity.rate_per_second:
                scope = f"sender:{prepared.claim.channel}:{prepared.identity}"
                found[_Limit(scope, identity.rate_per_second)].append(position)
        return found

    def _over_cap(self, prepared: Prepared) -> float | None:
        """How long to wait because a cap or a quota is used up; None: go. A retry was counted before, a
        test never is."""
        if prepared.claim.attempt_count > 0 or prepared.claim.is_test:
            return None
        taken: list[tuple[str, Cap]] = []
        wait: float | None = None
        for scope, cap in self._caps(prepared):
            use = self._book.use(scope, 1, cap=cap.count, window_seconds=cap.per_seconds)
            if not use.is_granted:
                wait = use.ends_in_seconds
                break
            taken.append((scope, cap))
        else:
            wait = self._over_quota(prepared)
        if wait is not None:
            # It does not go, so it has used nothing.
            for scope, cap in taken:
                self._book.give_back(scope, 1, window_seconds=cap.per_seconds)
        return wait

    def _caps(self, prepared: Prepared) -> list[tuple[str, Cap]]:
        caps = self._structure.caps
        channel = prepared.claim.channel
        found: list[tuple[str, Cap]] = []
        if caps.recipient:
            found.append((f"recipient:{channel}:{prepared.guard.address_hash.hex()[:32]}", caps.recipient))
        if caps.prefix and channel is Channel.SMS:
            # Pumping runs through neighbouring numbers: those that differ in the last three digits only.
            found.append((f"prefix:{prepared.claim.address[:-3]}", caps.prefix))
        return found

    def _over_quota(self, prepared: Prepared) -> float | None:
        claim = prepared.claim
        quota = self._structure.quotas.get(claim.producer)
        cap = getattr(quota, claim.channel) if quota else None
        if cap is None:
            return None
        use = self._book.use(f"producer:{claim.channel}:{claim.producer}", 1, cap=cap, window_seconds=_DAY)
        if use.used == int(cap * WARN_SHARE) or (use.used == cap and use.is_granted):
            detail = f"producer {claim.producer} has used {use.used} of its {cap} {claim.channel} today"
            self._book.note_quota(claim.id, detail)
            log.warning("quota.near", producer=claim.producer, channel=claim.channel, count=use.used, size=cap)
        return None if use.is_granted else use.ends_in_seconds
