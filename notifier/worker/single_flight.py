"""Keeps repeated work from running twice at the same time in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class SingleFlight:
    """One run at a time for each kind of work. Without it, work that starts every second and hangs, because
    another session locks its table, would take one thread of the process after another. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: set[str] = set()

    @contextmanager
    def turn(self, name: str) -> Iterator[bool]:
        """Whether nobody else is doing this work. If so, nobody else does it until the block ends."""
        with self._lock:
            is_ours = name not in self._under_way
            if is_ours:
                self._under_way.add(name)
        try:
            yield is_ours
        finally:
            if is_ours:
                with self._lock:
                    self._under_way.discard(name)
