"""Tells whether the loops of this process still turn, for `/healthz` beside `/metrics` and for `notifier health`.

A loop that waits for an unreachable database or broker still turns, because it tries again and again. Killing its
process would help nobody. A loop that has stopped turning does nothing any more, and its process has to be
restarted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

#: A loop that has not turned for longer than this is stalled. No step takes so long: statements, connections and
#: calls have time limits of 30 s or less. Seconds.
LIMIT_SECONDS = 120.0
#: How often an idle loop with a timer turns. Seconds.
TURN_SECONDS = 5.0


class Liveness:
    """The loops of a process. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        #: Loop → when it last turned.
        self._turned: dict[str, float] = {}

    def turned(self, loop: str) -> None:
        """Note that this loop turns now. It must keep doing so."""
        with self._lock:
            self._turned[loop] = self._clock()

    def ended(self, loop: str) -> None:
        """This loop no longer has to turn."""
        with self._lock:
            self._turned.pop(loop, None)

    @contextmanager
    def paused(self, loop: str) -> Iterator[None]:
        """During the block this loop need not turn: a library tries to reach the broker, for as long as that
        takes."""
        self.ended(loop)
        try:
            yield
        finally:
            self.turned(loop)

    def stalled(self) -> dict[str, float]:
        """The loops that have stopped turning, with the seconds since they last did; {}: there are none."""
        now = self._clock()
        with self._lock:
            ages = {loop: now - turned for loop, turned in self._turned.items()}
        return {loop: age for loop, age in sorted(ages.items()) if age > LIMIT_SECONDS}


#: The loops of this process.
LIVENESS = Liveness()


def watch(loop: asyncio.AbstractEventLoop, name: str) -> None:
    """From now on, note that this event loop turns. Call this inside it."""
    LIVENESS.turned(name)
    loop.call_later(TURN_SECONDS, watch, loop, name)
