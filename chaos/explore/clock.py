"""Time that moves only when somebody says so, and event loops that never wait.

Two clocks: that of the machine, which the code under test sees in place of the module `time`, and that of the
database, which is `explore.now()` (see `chaos.explore.database`).
"""

from __future__ import annotations

import asyncio
import sys
import time as real_time
from collections.abc import Callable
from typing import Any

#: The pool's own look at connections that rested stays as it is.
_UNTOUCHED = ("notifier.store.connection_pool", "notifier.dev")


class Clock:
    """Both clocks. What passes in truth while a schedule runs counts on neither."""

    def __init__(self) -> None:
        self._monotonic = 1_000_000.0
        #: What the database's clock shows. Unix time.
        self.database = 0.0
        self.reset()

    def monotonic(self) -> float:
        """In place of `time.monotonic`."""
        return self._monotonic

    def jump(self, seconds: float, *, only_database: bool = False) -> None:
        """So much later. `only_database`: by the database's clock alone, as when its machine was set."""
        self.database += seconds
        if not only_database:
            self._monotonic += seconds

    def reset(self) -> None:
        """The database's clock is right again, to a minute: to tell sessions of another time takes a statement.
        That of the machine never goes back."""
        self.database = round(real_time.time() / 60) * 60.0


class TimeModule:
    """Stands in notifier's modules where they import `time`."""

    def __init__(self, clock: Clock, sleep: Callable[[float], None]) -> None:
        self.monotonic = clock.monotonic
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(real_time, name)


def stand_in_for_time(clock: Clock, sleep: Callable[[float], None]) -> None:
    """Give every module of notifier that is loaded the clock in place of `time`. For this process, for good."""
    stand_in = TimeModule(clock, sleep)
    for name, module in list(sys.modules.items()):
        if not name.startswith("notifier.") or name.startswith(_UNTOUCHED):
            continue
        if isinstance(getattr(module, "time", None), type(real_time)):
            module.time = stand_in  # type: ignore[attr-defined]


class _Nothing:
    """A selector without files: when there is nothing to do, time goes on to the next timer."""

    def __init__(self, loop: DrainedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        """What the loop calls when it has nothing more to run at once."""
        if timeout is None:
            self._loop.stop()
        else:
            self._loop.passed += timeout
        return []


class DrainedLoop(asyncio.BaseEventLoop):
    """An event loop that runs in the thread of whoever hands it something, until nothing is left to do.

    The actor's thread waits for its coroutines anyway; like this nothing of it runs at a time that nobody chose.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._selector = _Nothing(self)
        #: What its own timers waited for. Seconds.
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
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody is asleep."""
