"""Warnings that strangers can cause as often as they like: they must not fill the disk with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

from notifier.config.logs import log

#: Shortest time between two lines of the same fields. Seconds.
PAUSE_SECONDS = 10.0
#: Lines of different fields within that time; a stranger may make up a field.
MOST_LINES = 20


@dataclass(slots=True)
class _Line:
    told_at: float
    #: Since then.
    count: int = 0


class RareWarning:
    """One event. Its `count` is how often it happened since its line before. Thread-safe."""

    def __init__(self, event: str, *, logger: Any = log, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._logger = logger
        self._clock = clock
        self._lock = Lock()
        self._lines: dict[tuple[tuple[str, str], ...], _Line] = {}

    def __call__(self, **fields: str) -> None:
        with self._lock:
            count = self._due(tuple(sorted(fields.items())))
        if count:
            self._logger.warning(self._event, count=count, **fields)

    def _due(self, key: Any) -> int:
        """How many the line is about that is due now; 0: none is."""
        now = self._clock()
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= MOST_LINES:
                self._lines = {k: one for k, one in self._lines.items() if now - one.told_at < PAUSE_SECONDS}
            if len(self._lines) >= MOST_LINES:
                return 0
            self._lines[key] = _Line(now)
            return 1
        line.count += 1
        if now - line.told_at < PAUSE_SECONDS:
            return 0
        line.told_at, count, line.count = now, line.count, 0
        return count
