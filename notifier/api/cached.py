"""An answer that is kept for a moment, so that whoever asks often costs no query each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class CachedAnswer(Generic[T]):
    """Asks at most once in `seconds`, whoever wants to know. Thread-safe; a failure is not kept."""

    def __init__(self, ask: Callable[[], T], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: tuple[float, T] | None = None

    def get(self) -> T:
        """The answer of now, or of a moment ago."""
        with self._lock:
            if self._kept is None or time.monotonic() > self._kept[0] + self._seconds:
                answer = self._ask()
                self._kept = (time.monotonic(), answer)
            return self._kept[1]
