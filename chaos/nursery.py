"""Starts worker processes within a tenth of a second, by forking a process that has imported everything and done
nothing else.

A forked process has no connections, threads or settings yet. It runs the program `notifier worker` from its first
line, so it differs from a worker of the fleet only in the second of imports that it saves.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from notifier.dev.forking import IMPORTS
from notifier.dev.processes import die_with_parent
from tests.support import forking

_ROOT = Path(__file__).parents[1]


class Nursery:
    """Starts programs and reaps them. A dead program keeps its process id until `bury`, so nobody else can get
    that id."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = forking.launch(
            [sys.executable, "-m", "chaos.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env=dict(environment),
            start_new_session=True,
        )
        self._lock = Lock()

    def start(self, log: Path, arguments: Sequence[str], own: Mapping[str, str] | None = None) -> int:
        """Run `notifier` with these arguments; `log` is overwritten. `own`: variables for this program only.
        Returns its process id."""
        return self._ask("start", str(log), json.dumps(dict(own or {})), *arguments)

    def bury(self, pid: int) -> int:
        """Wait for its end. Returns its exit code; the negative number of the signal if a signal ended it."""
        return self._ask("bury", str(pid))

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def _ask(self, *words: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write("\t".join(words) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())


def _main() -> None:
    for name in IMPORTS:
        importlib.import_module(name)
    # The garbage collector would write to every page that the children share.
    gc.freeze()
    living: set[int] = set()
    for line in sys.stdin:
        word, *rest = line.rstrip("\n").split("\t")
        if word == "start":
            answer = _fork(*rest)
            living.add(answer)
        else:
            pid = int(rest[0])
            _, status = os.waitpid(pid, 0)
            living.discard(pid)
            answer = os.waitstatus_to_exitcode(status)
        print(answer, flush=True)
    # The process that asked is gone.
    for pid in living:
        os.kill(pid, signal.SIGKILL)


def _fork(log: str, own: str, *arguments: str) -> int:
    # Before the fork, so that whoever learns of the process finds its own log, not that of the previous one.
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    pid = os.fork()
    if pid:
        os.close(out)
        return pid
    try:
        die_with_parent()
        os.environ.update(json.loads(own))
        for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(out, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
        sys.argv = ["notifier", *arguments]
        _run()
    finally:
        # Never back into the loop above, however the program ended.
        os._exit(1)


def _run() -> None:
    """Do what the interpreter would: return its exit code, and wait for remaining threads."""
    code: Any = 0
    try:
        if sys.argv[1] == "django":
            sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
            importlib.import_module("django.core.management").execute_from_command_line(sys.argv[1:])
        else:
            importlib.import_module("notifier.cli.app").main()
    except SystemExit as end:
        code = end.code
    threading._shutdown()  # type: ignore[attr-defined]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _main()
