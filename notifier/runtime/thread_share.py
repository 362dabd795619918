"""Limits the threads of a process that may be busy with one kind of work, so that others are free for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore


class ThreadShare:
    """At most `most` threads, at least one. No thread waits: one that gets no turn leaves the work for later."""

    def __init__(self, most: int) -> None:
        self._free = BoundedSemaphore(max(1, most))

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Whether this thread may do the work during the block."""
        is_ours = self._free.acquire(blocking=False)
        try:
            yield is_ours
        finally:
            if is_ours:
                self._free.release()
