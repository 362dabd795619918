"""Whether the loops of this process still turn, for `/healthz` beside `/metrics` and for `notifier health`.

A loop that waits for a database or a broker that is away turns all the same: it tries again and again. Killing its
process would bring nothing back. A loop that has stopped turning does nothing any more, and its process has to be
started again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

#: A loop that has not turned for longer is stalled. No step of one takes so long: statements, connections and
#: calls have deadlines of 30 s and less. Seconds.
LIMIT_SECONDS = 120.0
#: How often an idle loop that has a timer turns. Seconds.
TURN_SECONDS = 5.0


class Liveness:
    """Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        #: Loop → when it last turned.
        self._turned: dict[str, float] = {}

    def turned(self, loop: str) -> None:
        """This loop turns now, and has to go on doing so."""
        with self._lock:
            self._turned[loop] = self._clock()

    def ended(self, loop: str) -> None:
        """This loop need not turn any more."""
        with self._lock:
            self._turned.pop(loop, None)

    @contextmanager
    def paused(self, loop: str) -> Iterator[None]:
        """Meanwhile this loop need not turn: a library tries to reach the broker, for as long as it is away."""
        self.ended(loop)
        try:
            yield
        finally:
            self.turned(loop)

    def stalled(self) -> dict[str, float]:
        """The loops that have stopped turning, with the seconds since they last did; {}: none has."""
        now = self._clock()
        with self._lock:
            ages = {loop: now - turned for loop, turned in self._turned.items()}
        return {loop: age for loop, age in sorted(ages.items()) if age > LIMIT_SECONDS}


#: Of this process.
LIVENESS = Liveness()


def watch(loop: asyncio.AbstractEventLoop, name: str) -> None:
    """Note from now on that this event loop turns. To be called in it."""
    LIVENESS.turned(name)
    loop.call_later(TURN_SECONDS, watch, loop, name)
