"""Limits before a call: rates of providers and senders, caps of recipients and prefixes, quotas of producers.

A message over a limit waits by its `due_at`: it does not fail and holds no slot. Rates count SMS segments.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from notifier.config.limits import Cap
from notifier.config.logs import log
from notifier.config.settings import Settings
from notifier.delivery.delivery import Delivery, Permit, RateLimit
from notifier.delivery.prepare import Prepared
from notifier.domain.statuses import Channel, Lane
from notifier.store.rate_limits import RateLimitRepository, Turn, TurnRequest

#: If a turn comes within this time, the process waits for it; for a later turn the message waits by `due_at`. The
#: time is short because urgent messages queue behind those that wait in the process. It is longer for more urgent
#: lanes, so that they find a turn behind the turns that others hold. It is at least a tick of the sweep, because
#: messages that waited come back together on a tick. Seconds.
AHEAD_SECONDS: Mapping[Lane, float] = {Lane.URGENT: 2.5, Lane.NORMAL: 1.75, Lane.BULK: 1.25}
#: The same for a new turn that replaces a missed one; it joins no waiting line. Seconds.
RENEWAL_SECONDS = 3.0
#: Minimum and maximum time until a waiting message asks again; between them it is the message's age. The limit may
#: have been raised meanwhile, or messages ahead of it cancelled. Seconds.
PATIENCE_SECONDS = (600.0, 1800.0)
#: A message that expires asks once more this long before it expires. Seconds.
LAST_ASK_SECONDS = 2.0
#: Turns are granted at this share of the limit, because two calls may come a little closer than their turns.
SLACK = 0.97
#: Shortest wait of a message over a limit. Seconds.
MIN_LATER_SECONDS = 0.25
#: Producers are warned from this share of a quota on.
WARN_SHARE = 0.8


class RateLimiter:
    """Grants permits to call. Thread-safe; one per process."""

    def __init__(self, repository: RateLimitRepository, settings: Settings) -> None:
        self._repository = repository
        self._structure = settings.structure
        self._zone = settings.timezone
        #: Queries the database on behalf of the event loop: one query at a time, in order.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="turns")
        self._provider_rates = {
            table.name: table.rate_per_second for table in settings.provider_tables() if table.rate_per_second
        }

    async def wait(self, permit: Permit) -> None:
        if permit.turns:
            await asyncio.sleep(max(0.0, permit.not_before - time.monotonic()))

    async def renew(self, permit: Permit) -> None:
        """If `permit` is late, take new turns in place of the missed ones, and wait until the call may start.

        A call misses its turn while its process stands still, or while all slots are taken. The missed turn is
        lost: staying a little under the limit is better than exceeding it.

        Raises:
            ServiceUnavailable: the database is away.
        """
        while permit.is_late:
            not_before = 0.0
            for limit, units in permit.turns:
                not_before = max(not_before, await self._take_one(limit, units))
            permit = Permit(not_before, permit.turns)
            await self.wait(permit)

    async def _take_one(self, limit: RateLimit, units: int) -> float:
        """When the next turn begins, on the monotonic clock."""
        while True:
            asked = asyncio.get_running_loop().run_in_executor(self._asking, self._renewed, limit, units)
            turn, answered_at = await asked
            if turn.is_granted:
                return answered_at + turn.in_seconds
            await asyncio.sleep(turn.in_seconds)

    def _renewed(self, limit: RateLimit, units: int) -> tuple[Turn, float]:
        """The next turn, and when the answer came. Counting from the answer starts a call a little late, which is
        harmless; counting from the question would start it too early."""
        (turn,) = self._repository.take_turns(
            limit.scope, [units], per_second=limit.per_second * SLACK, at_most_seconds=RENEWAL_SECONDS
        )
        return turn, time.monotonic()

    def permits(self, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[tuple[Delivery, float]]]:
        """The deliveries that may call, each with its permit, and the others, with their wait in seconds.

        Raises:
            ServiceUnavailable: the database is away.
        """
        waits: dict[Delivery, float] = {}
        for delivery in deliveries:
            delivery.permit = Permit()
        # The slowest limit first: a delivery that has to wait there takes no turn of the other limits.
        for limit, ones in sorted(self._limits(deliveries).items(), key=lambda item: item[0].per_second):
            waits |= self._take(limit, [one for one in ones if one not in waits])
        for delivery in deliveries:
            wait = None if delivery in waits or delivery.earlier else self._over_cap(delivery.content)
            if wait is not None:
                waits[delivery] = wait
        permitted = [delivery for delivery in deliveries if delivery not in waits]
        return permitted, [(delivery, max(MIN_LATER_SECONDS, wait)) for delivery, wait in waits.items()]

    def _take(self, limit: RateLimit, deliveries: Sequence[Delivery]) -> dict[Delivery, float]:
        """Add a turn under this limit to their permits. Returns the wait in seconds of those that get no turn."""
        if not deliveries:
            return {}
        turns = self._repository.take_turns_of_lane(
            limit.scope,
            limit.lane,
            [_request(delivery) for delivery in deliveries],
            per_second=limit.per_second * SLACK,
            at_most_seconds=AHEAD_SECONDS[limit.lane],
        )
        answered_at = time.monotonic()
        waits: dict[Delivery, float] = {}
        for delivery, turn in zip(deliveries, turns, strict=True):
            if not turn.is_granted:
                waits[delivery] = turn.in_seconds
                continue
            before = delivery.permit
            not_before = max(before.not_before, answered_at + turn.in_seconds)
            delivery.permit = Permit(not_before, (*before.turns, (limit, delivery.content.units)))
        return waits

    def _limits(self, deliveries: Sequence[Delivery]) -> Mapping[RateLimit, list[Delivery]]:
        found: defaultdict[RateLimit, list[Delivery]] = defaultdict(list)
        for delivery in deliveries:
            if delivery.notification.is_test:
                continue
            lane = delivery.notification.lane
            rate = self._provider_rates.get(delivery.provider)
            if rate:
                found[RateLimit(f"provider:{delivery.provider}", rate, lane)].append(delivery)
            name = delivery.content.identity
            identity = self._structure.senders.get(name)
            if identity and identity.rate_per_second:
                scope = f"sender:{delivery.notification.channel}:{name}"
                found[RateLimit(scope, identity.rate_per_second, lane)].append(delivery)
        return found

    def _over_cap(self, prepared: Prepared) -> float | None:
        """Seconds to wait because a cap or a quota is used up; None: no wait. A notification that was tried was
        counted before, and a test never counts."""
        if prepared.notification.attempt_count > 0 or prepared.notification.is_test:
            return None
        taken: list[tuple[str, Cap]] = []
        wait: float | None = None
        for scope, cap in self._caps(prepared):
            use = self._repository.use(scope, 1, cap=cap.count, window_seconds=cap.per_seconds)
            if not use.is_granted:
                wait = use.ends_in_seconds
                break
            taken.append((scope, cap))
        else:
            wait = self._over_quota(prepared)
        if wait is not None:
            # It is not sent, so it must not use up the caps either.
            for scope, cap in taken:
                self._repository.give_back(scope, 1, window_seconds=cap.per_seconds)
        return wait

    def _caps(self, prepared: Prepared) -> list[tuple[str, Cap]]:
        caps = self._structure.caps
        channel = prepared.notification.channel
        found: list[tuple[str, Cap]] = []
        if caps.recipient:
            found.append((f"recipient:{channel}:{prepared.guard.address_hash.hex()[:32]}", caps.recipient))
        if caps.prefix and channel is Channel.SMS:
            # SMS pumping uses neighbouring numbers, which differ in the last three digits only.
            found.append((f"prefix:{prepared.notification.address[:-3]}", caps.prefix))
        return found

    def _over_quota(self, prepared: Prepared) -> float | None:
        one = prepared.notification
        quota = self._structure.quotas.get(one.producer)
        cap = getattr(quota, one.channel) if quota else None
        if cap is None:
            return None
        scope = f"producer:{one.channel}:{one.producer}"
        use = self._repository.use_of_day(scope, 1, cap=cap, zone=self._zone)
        if use.used == int(cap * WARN_SHARE) or (use.used == cap and use.is_granted):
            detail = f"producer {one.producer} has used {use.used} of its {cap} {one.channel} today"
            self._repository.note_quota(one.id, detail)
            log.warning("quota.near", producer=one.producer, channel=one.channel, count=use.used, size=cap)
        return None if use.is_granted else use.ends_in_seconds


def _request(delivery: Delivery) -> TurnRequest:
    one = delivery.notification
    patience = min(max(PATIENCE_SECONDS[0], one.age_seconds), PATIENCE_SECONDS[1])
    left = one.seconds_to_expiry_now()
    if left is not None:
        patience = max(0.0, min(patience, left - LAST_ASK_SECONDS))
    # A claim above 1 means that an earlier claim ended in a wait.
    return TurnRequest(delivery.content.units, has_waited=one.claim > 1, patience=patience)
