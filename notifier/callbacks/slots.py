"""Limits concurrent calls, and shares the slots fairly among producers."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSlots:
    """`total` slots, at most `each` for one producer. A free slot goes to the waiting producer that holds the
    fewest.

    So a producer with slow endpoints delays only itself. If many such producers have taken all slots, the next
    free one goes to a producer that has none.
    """

    def __init__(self, total: int, each: int) -> None:
        self._free = total
        self._each = each
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def hold(self, producer: str) -> AsyncIterator[None]:
        """Wait for a slot, and hold it for the block."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(producer, deque()).append(turn)
        self._admit()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free += 1
                self._held -= Counter({producer: 1})
                self._admit()

    def _admit(self) -> None:
        while self._free:
            ready = [producer for producer in self._waiting if self._held[producer] < self._each]
            if not ready:
                return
            producer = min(ready, key=lambda one: self._held[one])
            turns = self._waiting[producer]
            turn = turns.popleft()
            if not turns:
                del self._waiting[producer]
            if not turn.cancelled():
                self._free -= 1
                self._held[producer] += 1
                turn.set_result(None)
