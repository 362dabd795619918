"""The programs of the service, several of each: killed and frozen on demand, restarted when they are dead."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread

import psutil

from notifier.dev.processes import ServerProcess
from tests.support import forking

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "intake-1": ("intake",),
    "intake-2": ("intake",),
    "beat-1": ("beat",),
    "beat-2": ("beat",),
    "worker-1": ("worker", "--name", "chaos-1@%h"),
    "worker-2": ("worker", "--name", "chaos-2@%h"),
    "worker-3": ("worker", "--name", "chaos-3@%h"),
    "relay-1": ("relay",),
    "relay-2": ("relay",),
}

#: What a program logs when it is ready for work. Beat logs nothing, and a tick more or less makes no difference.
_READY = {
    "intake": b"intake.reading",
    "worker": b" ready.",
    "callbacks": b" ready.",
    "beat": b"beat.start",
    "relay": b"publishing what comes",
}
_READY_SECONDS = 60.0
_GRACE_SECONDS = 40.0
_RESTART_SECONDS = 0.3
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Crash:
    """A program that ended without being told to."""

    name: str
    pid: int
    last_words: str


class Fleet:
    """These programs, each with a log file below `folder`. `own`: variables for a single program, by its name."""

    def __init__(
        self,
        environment: Mapping[str, str],
        folder: Path,
        programs: Mapping[str, tuple[str, ...]] = PROGRAMS,
        own: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("NOTIFIER_")}
        self._processes = {
            name: ServerProcess(
                name,
                [sys.executable, "-m", "notifier", *arguments],
                log=folder / f"{name}.log",
                stop_plan=[(signal.SIGTERM, _GRACE_SECONDS)],
                cwd=_ROOT,
                env={**inherited, **environment, **(own or {}).get(name, {})},
                launch=forking.launch,
            )
            for name, arguments in programs.items()
        }
        self._logs = {name: folder / f"{name}.log" for name in programs}
        #: Length of each log when its program last started.
        self._log_begins = dict.fromkeys(programs, 0)
        self._lock = Lock()
        self._ended_by_us: set[int] = set()
        self._frozen: set[str] = set()
        self._freezes = 0
        self._stopping = Event()
        self._watcher = Thread(target=self._watch, name="fleet", daemon=True)
        #: Every program that ended without being told to.
        self.crashes: list[Crash] = []
        #: Kills so far, by kind of program.
        self.kills: dict[str, int] = {}

    def start(self) -> None:
        """Start them all, and restart those that die."""
        for process in self._processes.values():
            process.start()
        self._watcher.start()

    def wait_until_ready(self) -> None:
        """Return when every program is ready for work again, or after a minute; in that case the scenario will
        show it."""
        ends_at = time.monotonic() + _READY_SECONDS
        while time.monotonic() < ends_at and not all(self._is_ready(name) for name in self._processes):
            time.sleep(0.1)

    def _is_ready(self, name: str) -> bool:
        with self._lock:
            if not self._processes[name].is_running():
                return False
            with self._logs[name].open("rb") as log:
                log.seek(self._log_begins[name])
                return _READY[name.partition("-")[0]] in log.read()

    def stop(self) -> None:
        """Send SIGTERM to all at once, each with its grace."""
        self.thaw()
        self._stopping.set()
        self._watcher.join(10)
        with ThreadPoolExecutor(len(self._processes)) as pool:
            list(pool.map(ServerProcess.stop, self._processes.values()))

    def names(self, kind: str) -> list[str]:
        """The names of the programs of a kind: intake, worker, callbacks, beat, relay."""
        return [name for name in self._processes if name.startswith(kind)]

    @property
    def strikes(self) -> int:
        """Kills and freezes so far."""
        return sum(self.kills.values()) + self._freezes

    @property
    def pids(self) -> dict[str, int | None]:
        """Program → process id; None while it is down."""
        return {name: process.pid for name, process in self._processes.items()}

    def have_said(self, words: bytes) -> list[str]:
        """The programs whose logs contain these words."""
        return [name for name, log in self._logs.items() if log.exists() and words in log.read_bytes()]

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End that program (SIGKILL or SIGTERM); it is restarted soon after it is gone."""
        with self._lock:
            process = self._processes[name]
            if process.pid is None or not process.is_running():
                return
            self._ended_by_us.add(process.pid)
            os.kill(process.pid, number)
        kind = name.partition("-")[0]
        self.kills[kind] = self.kills.get(kind, 0) + 1

    def kill_by_port(self, port: int) -> None:
        """End the program at the local port of a connection."""
        for name, pid in self.pids.items():
            if pid is not None and port in ports_of(pid):
                self.kill(name)
                return

    def freeze(self, name: str) -> None:
        """SIGSTOP: it keeps its connections and its claims, but does nothing."""
        with self._lock:
            pid = self._processes[name].pid
            if pid is not None:
                os.kill(pid, signal.SIGSTOP)
                self._frozen.add(name)
                self._freezes += 1

    def thaw(self) -> None:
        """SIGCONT to all frozen programs."""
        with self._lock:
            for name in self._frozen:
                pid = self._processes[name].pid
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
            self._frozen.clear()

    def _last_words(self, name: str) -> str:
        """The worst lines that it logged in its life; `--keep` shows the whole log."""
        with self._logs[name].open("rb") as log:
            log.seek(self._log_begins[name])
            lines = log.read().decode("utf-8", "replace").splitlines()
        serious = [line for line in lines if '"critical"' in line and "Couldn't ack" not in line]
        return (serious or lines or ["it said nothing"])[-1][:200]

    def _watch(self) -> None:
        dead_since: dict[str, float] = {}
        while not self._stopping.wait(0.1):
            for name, process in self._processes.items():
                if process.is_running():
                    continue
                since = dead_since.setdefault(name, time.monotonic())
                if time.monotonic() - since >= _RESTART_SECONDS:
                    del dead_since[name]
                    self._restart(name, process)

    def _restart(self, name: str, process: ServerProcess) -> None:
        with self._lock:
            pid = process.pid or 0
            if pid not in self._ended_by_us:
                self.crashes.append(Crash(name, pid, self._last_words(name)))
            process.stop()
            self._log_begins[name] = self._logs[name].stat().st_size
            process.start()


def ports_of(pid: int) -> set[int]:
    """The local ports of a process's connections; empty if the process is gone."""
    try:
        return {found.laddr.port for found in psutil.Process(pid).net_connections("tcp4") if found.laddr}
    except psutil.Error:
        return set()
