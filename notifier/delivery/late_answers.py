"""Finishes tasks whose providers take long to answer, so that these tasks hold no thread.

A task is a generator: it yields what it waits for, and whoever drives it resumes it when the wait is over. At
first the task's own thread drives it. If answers take long, the task is handed over as it stands to one thread of
the process, which drives all such tasks. They run the same code in the same order, so results, failover and counts
are the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Protocol, TypeVar

T = TypeVar("T")

#: A task keeps its thread for this long after its calls began. Mail servers mostly answer sooner. With this value,
#: eight threads can begin 32 slow calls a second, each in a task of its own. Seconds.
KEEP_THREAD_SECONDS = 0.25


class Awaited(Protocol):
    """What a task waits for."""

    @property
    def is_over(self) -> bool:
        """Whether the wait is over, so that the task can go on."""

    @property
    def ends_at(self) -> float:
        """When the wait ends at the latest, on the monotonic clock."""

    @property
    def calls(self) -> Mapping[str, int]:
        """Provider → number of its calls that have no answer yet."""

    def wait(self) -> object:
        """Block until the wait is over."""

    def tell(self, ready: Callable[[], None]) -> None:
        """Call `ready`, in any thread and at least once, if the wait ends before `ends_at`."""


#: A task, or a part of one.
Steps = Generator[Awaited, None, T]


class Delay:
    """A pause: only time has to pass. Seconds."""

    calls: Mapping[str, int] = {}

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.ends_at = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.ends_at

    def wait(self) -> None:
        time.sleep(self._seconds)

    def tell(self, ready: Callable[[], None]) -> None:
        """Does nothing: a delay never ends before `ends_at`."""


class _Late:
    """A task that was handed over."""

    def __init__(self, steps: Steps[None], awaited: Awaited) -> None:
        self.steps = steps
        self.await_(awaited)

    def await_(self, awaited: Awaited) -> None:
        self.awaited, self.calls = awaited, awaited.calls


class LateAnswers:
    """Drives the handed-over tasks of one process. Thread-safe.

    `most`: the maximum number of open calls for each provider. A provider that hangs fills only its own share.
    """

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._lock = Lock()
        #: Only our thread removes any.
        self._open: set[_Late] = set()
        self._calls: Counter[str] = Counter()
        self._is_closed = False
        #: Tasks that may be able to go on. None: look at the state again.
        self._ready: SimpleQueue[_Late | None] = SimpleQueue()
        self._thread = Thread(target=self._drive, name="late-answers", daemon=True)
        self._thread.start()

    def take(self, steps: Steps[None], awaited: Awaited) -> bool:
        """Take over a task that waits. False: there is no room, and the task stays with its own thread."""
        late = _Late(steps, awaited)
        with self._lock:
            is_full = any(self._calls[name] + count > self._most for name, count in late.calls.items())
            if is_full or self._is_closed:
                return False
            self._calls.update(late.calls)
            self._open.add(late)
        # The wait may be over by now, and our thread must learn when it ends at the latest.
        self._ready.put(late)
        return True

    def close(self) -> None:
        """Take no more tasks. Returns when all tasks that were taken have ended."""
        with self._lock:
            self._is_closed = True
        self._ready.put(None)
        self._thread.join()

    def _drive(self) -> None:
        while (waiting := self._waiting()) is not None:
            now = time.monotonic()
            overdue = [late for late in waiting if late.awaited.ends_at <= now]
            for late in overdue:
                self._go_on(late)
            if overdue:
                continue
            timeout = min(late.awaited.ends_at for late in waiting) - now if waiting else None
            with suppress(Empty):
                told = self._ready.get(timeout=timeout)
                if told in self._open:
                    self._look(told)

    def _waiting(self) -> list[_Late] | None:
        """The open tasks. None: closed, and none is left."""
        with self._lock:
            return None if self._is_closed and not self._open else list(self._open)

    def _look(self, late: _Late) -> None:
        if late.awaited.is_over:
            self._go_on(late)
        else:
            late.awaited.tell(partial(self._ready.put, late))

    def _go_on(self, late: _Late) -> None:
        awaited: Awaited | None = None
        # The task has logged its error itself, and has given back what was not called.
        with suppress(StopIteration, Exception):
            awaited = next(late.steps)
        with self._lock:
            self._calls.subtract(late.calls)
            if awaited is None:
                self._open.discard(late)
                return
            late.await_(awaited)
            self._calls.update(late.calls)
        awaited.tell(partial(self._ready.put, late))
