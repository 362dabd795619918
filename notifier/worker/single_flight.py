"""Work of a process that is begun again and again, and must not run twice at once in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class SingleFlight:
    """What begins each second and stands still, because another session locks its table, would otherwise take one
    thread of the process after the other. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: set[str] = set()

    @contextmanager
    def turn(self, name: str) -> Iterator[bool]:
        """Whether nobody else is busy with it; if so, nobody else is until the end."""
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
