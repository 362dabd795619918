"""Limits how many of this process's threads each key may use, and reserves threads for callers without a key."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from notifier.api.errors import Refusal, retry_after
from notifier.config.database_pools import API_MONITORING_THREADS, API_OUTSIDE_THREADS

_P = ParamSpec("_P")
_T = TypeVar("_T")
_outside: RunVar[CapacityLimiter] = RunVar("notifier.outside")
_monitoring: RunVar[CapacityLimiter] = RunVar("notifier.monitoring")

#: Suggested wait before a client tries again: another search has probably ended by then. Seconds.
_AGAIN_SECONDS = 5


async def for_outside(work: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> _T:
    return await to_thread.run_sync(partial(work, *args, **named), limiter=_limiter(_outside, API_OUTSIDE_THREADS))


async def for_monitoring(work: Callable[[], _T]) -> _T:
    return await to_thread.run_sync(work, limiter=_limiter(_monitoring, API_MONITORING_THREADS))


def _limiter(kept: RunVar[CapacityLimiter], threads: int) -> CapacityLimiter:
    # One for the running loop, like anyio's own.
    try:
        return kept.get()
    except LookupError:
        kept.set(CapacityLimiter(threads))
        return kept.get()


@dataclass(slots=True)
class _Turns:
    semaphore: asyncio.Semaphore
    #: Requests that have a turn or wait for one.
    users: int = field(default=0)


class Shares:
    """Turns at the threads. A key has at most `most` at once; its other requests wait without holding a thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._turns: dict[str, _Turns] = {}

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        turns = self._turns.setdefault(key, _Turns(asyncio.Semaphore(self._most)))
        turns.users += 1
        try:
            async with turns.semaphore:
                yield
        finally:
            turns.users -= 1
            if not turns.users:
                del self._turns[key]


class LongReads:
    """Places for reads that may take seconds: `most` in total, and half of that for one key. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._most_of_key = max(1, most // 2)
        self._lock = threading.Lock()
        self._by_key: Counter[str] = Counter()

    def __len__(self) -> int:
        with self._lock:
            return self._by_key.total()

    def begin(self, key: str) -> Callable[[], None]:
        """Take a place; call the result once to give it back. Raises `Refusal`: 429 or 503."""
        headers = retry_after(_AGAIN_SECONDS)
        with self._lock:
            if self._by_key[key] >= self._most_of_key:
                detail = f"this key has {self._by_key[key]} searches, counts or exports in progress: wait for one"
                raise Refusal(429, detail, headers=headers)
            if self._by_key.total() >= self._most:
                raise Refusal(503, "too many searches, counts and exports are in progress", headers=headers)
            self._by_key[key] += 1

        def end() -> None:
            with self._lock:
                self._by_key[key] -= 1
                if not self._by_key[key]:
                    del self._by_key[key]

        return end
