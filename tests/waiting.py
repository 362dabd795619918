"""Waiting for something that happens in another thread or process: on a condition, with a deadline, never a sleep.

A number of seconds in a test says how long the thing may take on an idle machine, with much to spare. Two factors
stretch it: `NOTIFIER_TEST_PATIENCE`, 1 unless it is set, and how much slower than an idle one the machine is. That
is measured when a deadline is reached. So a busy machine makes a test slow, not red.

| for                                                        | use                        |
|------------------------------------------------------------|----------------------------|
| a condition                                                | `wait_until(condition, 30)` |
| a loop of your own                                         | `Deadline(30)`             |
| `timeout=` of join, communicate, urlopen …: cannot be extended | `patient(30)`          |
| the limit of a whole test, `pytest.mark.timeout(240)`      | nothing: it is stretched   |
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Self, TypeVar

from notifier.dev import machine

T = TypeVar("T")

PATIENCE = "NOTIFIER_TEST_PATIENCE"
#: So long a measurement holds for time-outs that are asked for one after the other.
_FRESH_SECONDS = 5.0
#: What cannot be stretched later gets this much beforehand: the machine may become busy meanwhile.
_BEFOREHAND = 3.0

_measured: tuple[float, float] = (float("-inf"), 1.0)


def wait_until(condition: Callable[[], T | None], timeout: float = 10, *, every: float = 0.02) -> T:
    """Call `condition` until what it returns is true, and return that.

    Raises:
        AssertionError: after `timeout` seconds of an idle machine, with the last value; an error of the condition
            passes through.
    """
    deadline = Deadline(timeout)
    while True:
        # Asked first: what becomes true while the deadline passes counts.
        is_over = deadline.is_over()
        value = condition()
        if value:
            return value
        if is_over:
            what = getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"{what} was still {value!r} after {deadline}")
        time.sleep(every)


def patient(seconds: float) -> float:
    """These seconds of an idle machine, for the machine as it is: for time-outs that nobody can extend."""
    return seconds * patience() * max(_BEFOREHAND, 2 * slowness())


class Deadline:
    """A moment that moves away while the machine is slow."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds * patience()
        self._allowed = self._seconds
        self._started_at = time.monotonic()

    def is_over(self) -> bool:
        """Whether the time is up. Measures the machine before it says so."""
        if self.remaining > 0:
            return False
        self._allowed = max(self._allowed, self._seconds * slowness(fresh=True))
        return self.remaining <= 0

    @property
    def remaining(self) -> float:
        """Seconds until the next look, 0 or less when it is due."""
        return self._allowed - (time.monotonic() - self._started_at)

    def __str__(self) -> str:
        stretched = self._allowed / self._seconds if self._seconds else 1.0
        return f"{self._allowed:.3g} s" + (f" (the machine is {stretched:.1f} times slower)" * (stretched > 1.05))


class Stalls:
    """How long this process stood still at the longest, measured by a thread that wakes all the time."""

    EVERY_SECONDS = 0.005

    def __init__(self) -> None:
        self.longest = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(self.EVERY_SECONDS):
            now = time.monotonic()
            self.longest = max(self.longest, now - last - self.EVERY_SECONDS)
            last = now

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def patience() -> float:
    """The factor that the developer chose."""
    return float(os.environ.get(PATIENCE, 1))


def slowness(*, fresh: bool = False) -> float:
    """As `machine.slowness`; not measured again at once, unless `fresh`."""
    global _measured
    at, found = _measured
    if fresh or time.monotonic() - at > _FRESH_SECONDS:
        # Not before the machine has been asked: a thread that comes meanwhile measures for itself.
        found = machine.slowness()
        _measured = (time.monotonic(), found)
    return found
