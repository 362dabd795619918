"""Server processes of our own: started in their own session, stopped in order, never left behind.

Three mechanisms make sure that none is left behind. `ServerProcess.stop` ends a server gently, then harder. A
guard, a small shell that waits for the end of a pipe only we hold, does the same if we are killed: it asks, and at
the end of the plan kills what has not obeyed, with its whole session. And whoever starts the next server in the
same folder finds leftovers with `end_leftover`, under a `FolderLock`.
"""

from __future__ import annotations

import ctypes
import fcntl
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from notifier.dev.machine import make_data_folder, private_opener, slowness
from notifier.domain.errors import ConfigurationError, ServiceUnavailable

#: Signals, mildest first, each with the seconds that the process has to obey it.
StopPlan = Sequence[tuple[signal.Signals, float]]

_LOG_LIMIT_BYTES = 10_000_000
_POLL_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Our end of the pipe closes when we end, in whatever way. Then `read` fails, and the server is asked to stop. The
# kernel's parent-death signal would do this too, but only on Linux, and it fires when the *thread* that started
# the server ends. The server leads its own process group, so "-$1" is the server and everything it has started.
_GUARD = """
read -r _
kill -s "$2" "$1" 2>/dev/null || exit
left=$3
while [ "$left" -gt 0 ]; do
  kill -0 "$1" 2>/dev/null || exit
  sleep 1
  left=$((left - 1))
done
kill -s KILL -- "-$1" 2>/dev/null
"""


class ServerProcess:
    """One server, as our child in a session of its own. A Ctrl-C in the terminal does not reach it, so it outlives
    the workers that need it, until `stop`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        stop_plan: StopPlan,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        launch: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
    ) -> None:
        """`launch` makes a child process from a command, with the arguments of `subprocess.Popen`."""
        self._name = name
        self._command = [str(part) for part in command]
        self._log = log
        self._stop_plan = stop_plan
        self._cwd = cwd
        self._env = env
        self._launch = launch
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, as long as it is ours to stop."""
        return self._process.pid if self._process else None

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and its guard. Does not wait until it answers."""
        _rotate(self._log)
        with open(self._log, "ab", opener=private_opener) as log:
            self._process = self._launch(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._cwd,
                env=self._env,
                start_new_session=True,
            )
        gentle = self._stop_plan[0][0].name.removeprefix("SIG")
        seconds = math.ceil(sum(seconds for _, seconds in self._stop_plan))
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self._process.pid), gentle, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_until(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Return when `ready` returns True.

        Raises:
            ServiceUnavailable: the server ended, or is not ready in time (longer on a slow machine); the text has
                the end of its log.
        """
        began, allowed = time.monotonic(), timeout_seconds
        while not ready():
            if not self.is_running():
                raise ServiceUnavailable(f"{self._name} ended while starting. {self.last_words()}")
            if time.monotonic() - began > allowed:
                # Measured only when the time is over, because measuring takes time.
                allowed = max(allowed, timeout_seconds * slowness())
                if time.monotonic() - began > allowed:
                    raise ServiceUnavailable(
                        f"{self._name} was not ready within {allowed:.3g} s. {self.last_words()}"
                    )
            time.sleep(_POLL_SECONDS)

    @property
    def ending(self) -> str:
        """How it ended: "code 1", "SIGKILL". Empty: it has not ended."""
        code = self._process.poll() if self._process else None
        if code is None:
            return ""
        return f"code {code}" if code >= 0 else signal.Signals(-code).name

    def last_words(self) -> str:
        """The path of the log, and its last lines."""
        lines = self._log.read_text("utf-8", errors="replace").splitlines()[-8:] if self._log.exists() else []
        return f"The end of {self._log}:\n" + "\n".join(lines)

    def stop(self) -> None:
        """End the server by its plan, then by force. Safe to repeat."""
        if self._process is not None:
            for number, seconds in (*self._stop_plan, (signal.SIGKILL, 10.0)):
                if self._process.poll() is not None:
                    break
                self._process.send_signal(number)
                try:
                    self._process.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue
            self._process = None
        self._dismiss_guard()

    def _dismiss_guard(self) -> None:
        if self._guard is not None:
            # Before its pipe closes, because the server's process id may be somebody else's by now.
            self._guard.kill()
            self._guard.wait()
            if self._guard.stdin:
                self._guard.stdin.close()
            self._guard = None


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Get this signal when the thread that forked this process ends, in whatever way. Only on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


class FolderLock:
    """A lock on a folder, with one owner at a time. The kernel releases it when the owner ends, even by kill
    -9."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return True

    def owner(self) -> str:
        """The process id that the last owner wrote, for messages to people."""
        return self._path.read_text("ascii").strip() or "unknown"

    def release(self) -> None:
        """Release the lock. Safe to repeat."""
        if self._descriptor is not None:
            # Merely closed, it would stay locked as long as a child that another thread is starting has a copy.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None


def own(data_dir: Path, lock: FolderLock, server: str) -> None:
    """Make the data folder if it is missing, and become the owner of this server in it.

    Raises:
        ConfigurationError: another process is its owner, or other users can write there.
    """
    make_data_folder(data_dir)
    if not lock.acquire():
        raise ConfigurationError(
            f"the {server} in {data_dir} is in use by process {lock.owner()}: stop that one (is `notifier up` "
            "running in another terminal?), or set NOTIFIER_DATA_DIR to another folder",
            setting="NOTIFIER_DATA_DIR",
        )


def exists(pid: int) -> bool:
    """Whether we could send it a signal. It may be a zombie."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def command_line(pid: int) -> str:
    """The command of a running process; empty if there is none (or only a zombie)."""
    if Path("/proc/self/cmdline").exists():
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return raw.replace(b"\0", b" ").decode(errors="replace").strip()
    found = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def end_leftover(pid: int, marker: str, stop_plan: StopPlan) -> None:
    """Stop a server that outlived its owner, but only if `marker` is in its command line, because process ids are
    reused.

    Raises:
        ConfigurationError: it cannot be ended.
    """
    for number, seconds in (*stop_plan, (signal.SIGKILL, 10.0)):
        if marker not in command_line(pid):
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            break
        deadline = time.monotonic() + seconds
        while marker in command_line(pid) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    if marker in command_line(pid):
        raise ConfigurationError(
            f"process {pid} is left from an earlier run and cannot be ended: end it (kill {pid}) and start again",
            setting="NOTIFIER_DATA_DIR",
        )


def _rotate(log: Path) -> None:
    """Rotate the log, because a service that is started every day for a year must not fill the disk."""
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
