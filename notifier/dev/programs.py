"""Runs the service's programs as child processes: starts them together, restarts those that die, stops them in
order."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from subprocess import Popen
from threading import Event

from notifier.dev.machine import make_private
from notifier.dev.processes import ServerProcess
from notifier.dev.restarts import Restarts

#: In the order in which they are started.
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "intake": ("intake",),
    "beat": ("beat",),
    "worker-urgent": ("worker", "--lanes", "urgent"),
    "worker-normal": ("worker", "--no-callbacks", "--lanes", "normal,bulk"),
    "callbacks": ("callbacks", "run"),
}

#: The HTTP API, if it is wanted.
API: Mapping[str, tuple[str, ...]] = {"api": ("api",)}

#: Time for a program to finish what is in flight. Seconds.
GRACE_SECONDS = 45.0
#: A program that has not ended this long after its grace is killed. Seconds.
_KILL_SECONDS = 10.0
#: Pauses before a program that died is started again; the last one repeats. Seconds.
_PAUSES = (0.5, 2.0, 5.0, 15.0)
#: Time limit for the start, generous for a busy machine. Seconds.
_START_SECONDS = 60.0
#: Pause between two checks whether a program has died. Seconds.
_ANSWER_SECONDS = 1.0


@dataclass(slots=True)
class _Program:
    process: ServerProcess
    log: Path
    restarts: Restarts = field(default_factory=lambda: Restarts(_PAUSES))


class Programs:
    """All `programs`, each with its log file in `log_dir`. `own`: program → variables for this program only.

    `launch` is that of `ServerProcess`.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        log_dir: Path,
        own: Mapping[str, Mapping[str, str]] | None = None,
        programs: Mapping[str, tuple[str, ...]] = PROGRAMS,
        grace_seconds: float = GRACE_SECONDS,
        launch: Callable[..., Popen[bytes]] = Popen,
    ) -> None:
        make_private(log_dir)
        env, own = {**os.environ, **environment}, own or {}
        self._programs = {
            name: _Program(
                ServerProcess(
                    name,
                    [sys.executable, "-m", "notifier", *arguments],
                    log=log_dir / f"{name}.log",
                    stop_plan=[(signal.SIGTERM, grace_seconds + _KILL_SECONDS)],
                    cwd=Path.cwd(),
                    env={**env, **own.get(name, {})},
                    launch=launch,
                ),
                log_dir / f"{name}.log",
            )
            for name, arguments in programs.items()
        }

    @property
    def pids(self) -> dict[str, int | None]:
        """Program → process id; None while it is down."""
        return {name: program.process.pid for name, program in self._programs.items()}

    @property
    def running(self) -> dict[str, bool]:
        return {name: program.process.is_running() for name, program in self._programs.items()}

    @property
    def logs(self) -> dict[str, Path]:
        return {name: program.log for name, program in self._programs.items()}

    def __enter__(self) -> Programs:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start them all, or start them all again. They wait for the database and the broker by themselves."""
        for program in self._programs.values():
            program.process.start()
            program.restarts = Restarts(_PAUSES)
            program.restarts.started(time.monotonic())

    def is_ready(self, port: int | None = None) -> bool:
        """Whether all are running and, with `port`, the API answers there. It listens before it knows that it can
        work."""
        return all(self.running.values()) and (port is None or _answers(port))

    def wait_until_ready(self, stop: Event, port: int | None = None) -> bool:
        """Wait until all are running and, with `port`, the API answers there. False: `stop` is set, a program
        died, or it took longer than `_START_SECONDS`."""
        deadline = time.monotonic() + _START_SECONDS
        while not stop.wait(0.05) and all(self.running.values()) and time.monotonic() < deadline:
            if self.is_ready(port):
                return True
        return False

    def last_words(self) -> str:
        """The names of programs that have ended, and the last lines of their logs."""
        ended = self._ended()
        return "\n".join([f"{', '.join(ended)} ended.", *(one.process.last_words() for one in ended.values())])

    def leave_ended(self) -> None:
        """Leave ended programs alone until the next `start`: `watch` does not restart them."""
        for program in self._ended().values():
            program.restarts.give_up()

    def _ended(self) -> dict[str, _Program]:
        return {name: program for name, program in self._programs.items() if not program.process.is_running()}

    def watch(self, stop: Event, died: Callable[[str, float], None], check: Callable[[], None]) -> None:
        """Restart programs that die until `stop` is set; `died(name, seconds until the restart)` is called each
        time. `check` is called five times a second."""
        while not stop.wait(0.2):
            check()
            if stop.is_set():
                # If it was set while programs were being restarted, none is running.
                return
            now = time.monotonic()
            for name, program in self._programs.items():
                restarts = program.restarts
                if restarts.due_at is not None and now >= restarts.due_at:
                    program.process.stop()
                    program.process.start()
                    restarts.started(now)
                elif restarts.due_at is None and not program.process.is_running():
                    died(name, restarts.died(now))

    def stop(self) -> None:
        """Send SIGTERM to all at once, each with its grace; messages that come in during this are in the record or
        the broker. Safe to repeat."""
        with ThreadPoolExecutor(len(self._programs)) as pool:
            list(pool.map(lambda program: program.process.stop(), self._programs.values()))


def _answers(port: int) -> bool:
    with closing(HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)) as connection:
        try:
            connection.request("GET", "/healthz")
            connection.getresponse()
        except (OSError, HTTPException):
            return False
    return True
