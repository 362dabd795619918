"""Time that moves only on command, and event loops that never wait.

There are two clocks: the machine's, which the code under test sees in place of the module `time`, and the
database's, which is `explore.now()` (see `chaos.explore.database`).
"""

from __future__ import annotations

import asyncio
import sys
import time as real_time
from collections.abc import Callable
from typing import Any

#: Modules that keep the real `time`: the pool's own check of idle connections stays as it is.
_UNTOUCHED = ("notifier.store.connection_pool", "notifier.dev")


class Clock:
    """Both clocks. The real time during a schedule counts on neither."""

    def __init__(self) -> None:
        self._monotonic = 1_000_000.0
        #: The time of the database's clock. Unix time.
        self.database = 0.0
        self.reset()

    def monotonic(self) -> float:
        """Replaces `time.monotonic`."""
        return self._monotonic

    def jump(self, seconds: float, *, only_database: bool = False) -> None:
        """Move the clocks ahead. `only_database`: only the database's clock, as if its machine had been set."""
        self.database += seconds
        if not only_database:
            self._monotonic += seconds

    def reset(self) -> None:
        """Set the database's clock right again, to the minute, because telling sessions another time takes a
        statement. The machine's clock never goes back."""
        self.database = round(real_time.time() / 60) * 60.0


class TimeModule:
    """Replaces the module `time` in notifier's modules."""

    def __init__(self, clock: Clock, sleep: Callable[[float], None]) -> None:
        self.monotonic = clock.monotonic
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(real_time, name)


def stand_in_for_time(clock: Clock, sleep: Callable[[float], None]) -> None:
    """Replace `time` by the clock in every loaded module of notifier. Permanent for this process."""
    stand_in = TimeModule(clock, sleep)
    for name, module in list(sys.modules.items()):
        if not name.startswith("notifier.") or name.startswith(_UNTOUCHED):
            continue
        if isinstance(getattr(module, "time", None), type(real_time)):
            module.time = stand_in  # type: ignore[attr-defined]


class _Nothing:
    """A selector without files: if there is nothing to do, time moves to the next timer."""

    def __init__(self, loop: DrainedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        """The loop calls this when it has nothing more to run."""
        if timeout is None:
            self._loop.stop()
        else:
            self._loop.passed += timeout
        return []


class DrainedLoop(asyncio.BaseEventLoop):
    """An event loop that runs in the thread of whoever submits work, until nothing is left to do.

    The actor's thread waits for its coroutines anyway. This way none of them runs at a time that nobody chose.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._selector = _Nothing(self)
        #: Total wait of its own timers. Seconds.
        self.passed = 0.0
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        return self._clock.monotonic() + self.passed

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle = self.call_soon(callback, *args, context=context)
        if not self.is_running():
            self.run_forever()
        return handle

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no events."""

    def _write_to_self(self) -> None:
        """Nothing sleeps, so nothing has to be woken."""
