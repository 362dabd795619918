"""Programs of the service within a tenth of a second: forked from a process that has imported everything.

What is forked has no connection, no thread and no setting yet, and runs `notifier …` from its first line to the
end of the interpreter. So it differs from the real one in the two seconds of imports that it saves, which are most
of what a short test costs. The full profile, and who changes how Python starts, get the real one.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import IO, Any, NoReturn

from tests.profiles import is_full

_ROOT = Path(__file__).parents[2]
_IMPORTS = (
    "notifier.bootstrap",
    "notifier.cli",
    "notifier.cli.running",
    "notifier.worker",
    "psycopg",
    "celery.apps.worker",
)
#: Variables that act before the first line of Python.
_BEFORE_PYTHON = ("LD_PRELOAD", "PYTHONPATH")
_LONGEST = 1 << 20

_nursery: _Nursery | None = None
_lock = Lock()


def launch(command: Sequence[str], **options: Any) -> Any:
    """As `subprocess.Popen`, for `python -m notifier …`."""
    global _nursery
    environment: Mapping[str, str] = options["env"]
    is_plain = all(environment.get(name) == os.environ.get(name) for name in _BEFORE_PYTHON)
    if is_full() or not is_plain or list(command[:3]) != [sys.executable, "-m", "notifier"]:
        return subprocess.Popen(command, **options)
    with _lock:
        _nursery = _nursery or _Nursery()
        return _nursery.fork(command[3:], environment, options["cwd"], options["stdout"])


def close() -> None:
    """Let the process that forks end. Safe to repeat."""
    global _nursery
    if _nursery:
        _nursery.close()
        _nursery = None


class Forked:
    """What of `subprocess.Popen` a `ServerProcess` uses."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._line = line

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._code(0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code.

        Raises:
            subprocess.TimeoutExpired: it runs still.
        """
        code = self._code(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """By force."""
        self.send_signal(signal.SIGKILL)

    def _code(self, timeout: float | None) -> int | None:
        """It is told on its line once."""
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                told = self._line.recv(64)
            except (BlockingIOError, TimeoutError):
                return None
            self.returncode = int(told) if told else -signal.SIGKILL
            self._line.close()
        return self.returncode


class _Nursery:
    """The process that forks, and our end of the line to it."""

    def __init__(self) -> None:
        self._line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forking", str(far.fileno())],
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
                start_new_session=True,
            )

    def fork(self, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path, log: IO[bytes]) -> Forked:
        """Run `notifier` with these arguments."""
        line, far = socket.socketpair()
        with far:
            wish = {"arguments": list(arguments), "environment": dict(environment), "cwd": str(cwd)}
            socket.send_fds(self._line, [json.dumps(wish).encode()], [far.fileno(), log.fileno()])
        return Forked(int(self._line.recv(64)), line)

    def close(self) -> None:
        self._line.close()
        self._process.wait()


def _serve(line: socket.socket) -> list[str]:
    """Returns in a child, with its arguments; the parent ends with the line, and its children with it."""
    living: dict[int, socket.socket] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(line, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == woken:
                os.read(woken, 4096)
                _tell_ends(living)
                continue
            message, descriptors, _, _ = socket.recv_fds(line, _LONGEST, 2)
            if not message:
                _end(living)
            told = socket.socket(fileno=descriptors[0])
            if pid := os.fork():
                living[pid] = told
                os.close(descriptors[1])
                line.send(str(pid).encode())
                continue
            signal.set_wakeup_fd(-1)
            selector.close()
            for one in (line, told, *living.values()):
                one.close()
            os.close(woken)
            os.close(wake)
            return _become(descriptors[1], **json.loads(message))


def _tell_ends(living: dict[int, socket.socket]) -> None:
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with living.pop(pid) as told:
            # Nobody may be there any more to hear it.
            told.send(str(os.waitstatus_to_exitcode(status)).encode(), socket.MSG_NOSIGNAL)


def _end(living: Mapping[int, socket.socket]) -> NoReturn:
    for pid in living:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _become(log: int, arguments: list[str], environment: dict[str, str], cwd: str) -> list[str]:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    return arguments


if __name__ == "__main__":
    for name in _IMPORTS:
        importlib.import_module(name)
    # The garbage collector would write to every page that the children share.
    gc.freeze()
    sys.argv = ["notifier", *_serve(socket.socket(fileno=int(sys.argv[1])))]
    sys.exit(importlib.import_module("notifier.cli").main())
