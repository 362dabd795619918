"""Ends a program: in order after SIGTERM, SIGINT or SIGHUP, and by force if its grace period runs out.

An endless wait (a statement on a database that was stopped, a library's retry) must not keep a program running:
its supervisor would kill it, and nobody would know what it was doing. So a thread watches. It learns of signals
through the interpreter's wake-up pipe, at once, even while the main thread is inside a C library, and whatever
else handles signals. When the grace period is over, it logs which threads are still at work, and where, and ends
the process.

That does no more harm than kill -9: the work is in the record or the broker, and leases cover the rest.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

log = logging.getLogger("notifier.runtime.shutdown")

#: Exit code of a program that had to be ended; the same as timeout(1) uses.
OVERDUE = 124
#: Signals that end a program in order. SIGHUP comes from a terminal that closes.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: True if `nohup` started this program: a signal that it has us ignore stays ignored.
_IGNORES_HANGUP = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
#: Maximum time for logging, so that a log that nobody reads does not keep the program running either. Seconds.
_TELL_SECONDS = 2.0
#: Prefix of our modules; the place of a thread in other modules says little.
_OURS = __name__.partition(".")[0] + "."


class Shutdown:
    """The shutdown of one program. Make it in the main thread."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        #: Set by the first signal. A second one changes nothing.
        self.stop = threading.Event()
        #: The same, but set at once, without waiting for the thread that sets `stop`.
        self.has_begun = False
        self._thread = threading.Thread(target=self._watch, name="shutdown", daemon=True)
        self._thread.start()

    def listen(self) -> threading.Event:
        """Handle the signals: each one only sets `stop`, which is returned, and starts the grace period."""
        handle_signals(self.begin)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self.stop

    def begin(self, number: int = signal.SIGTERM, _frame: FrameType | None = None) -> None:
        """A signal came. For signal handlers that others set in place of ours."""
        self.has_begun = True
        # Only a write: `Event.set` takes a lock, which the very code that this interrupts could hold.
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, bytes([number]))

    def _watch(self) -> None:
        while os.read(self._reader, 1)[0] not in SIGNALS:
            pass  # another signal, which its own handler handles
        self.stop.set()
        time.sleep(self._grace_seconds)
        teller = threading.Thread(target=self._tell, daemon=True)
        teller.start()
        teller.join(_TELL_SECONDS)
        os._exit(OVERDUE)

    def _tell(self) -> None:
        still = "; ".join(_at_work()) or "no thread of ours"
        log.error(
            "not ended %g s after the signal, so it ends now (exit code %d); still in hand: %s",
            self._grace_seconds,
            OVERDUE,
            still,
        )
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


def handle_signals(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Have `handler` called for each of `SIGNALS`, whatever a library has put there."""
    for number in SIGNALS:
        is_ignored = number == signal.SIGHUP and _IGNORES_HANGUP
        signal.signal(number, signal.SIG_IGN if is_ignored else handler)


def stop_on_signals(grace_seconds: float) -> threading.Event:
    """An event that each of `SIGNALS` sets. A program that outlives the grace period after that is ended."""
    return Shutdown(grace_seconds).listen()


class Stopped(KeyboardInterrupt):
    """One of `SIGNALS` in a command. Raised wherever the command is; a second one also interrupts its clean-up."""

    def __init__(self, number: int) -> None:
        super().__init__()
        #: 129 after SIGHUP, 130 after Ctrl-C, 143 after SIGTERM, as a shell reports a program that a signal ended.
        self.exit_code = 128 + number


def interrupt_on_signals(grace_seconds: float) -> None:
    """For commands, which check no `stop`: the signal raises `Stopped`, and the same grace period applies."""
    shutdown = Shutdown(grace_seconds)
    shutdown.listen()

    def interrupt(number: int, _frame: FrameType | None) -> Any:
        shutdown.begin(number)
        raise Stopped(number)

    handle_signals(interrupt)


def _at_work() -> Iterator[str]:
    """Each thread that runs our code, and the place where it is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, innermost in sys._current_frames().items():
        frame: FrameType | None = innermost
        while frame is not None and not str(frame.f_globals.get("__name__", "")).startswith(_OURS):
            frame = frame.f_back
        if frame is not None and frame.f_globals["__name__"] != __name__:
            place = f"{frame.f_globals['__name__']}.{frame.f_code.co_name}"
            yield f"{names.get(ident, 'a thread')} in {place}, line {frame.f_lineno}"
