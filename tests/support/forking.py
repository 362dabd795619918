"""Starts programs of tests within a tenth of a second, with `notifier.dev.forking`. The full profile starts real
ones.

Importing everything takes seconds, and several processes of a run need a process that has done it: each process of
xdist, and the fault suite. So the first one, which calls `share`, keeps one for all. Each of the others gets a
fork of it, which forks only for that process.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from notifier.dev import forking
from notifier.dev.forking import ForkServer, can_fork
from notifier.domain.errors import ServiceUnavailable
from tests.profiles import is_full

_ROOT = Path(__file__).parents[2]
#: For a Django program, which loads none of the others.
_IMPORTS_OF_DJANGO = (
    "django.core.management.commands.migrate",
    "django.core.servers.basehttp",
    "django.db.migrations.autodetector",
    "django.forms",
    "django.template.loader",
    "django.test",
    "kombu.transport.pyamqp",
    "psycopg",
    "sqlalchemy",
)
#: Variables that take effect before a program's first line. Each combination of them has its own forking process.
_BEFORE_PYTHON = ("LANG", "LC_", "LD_", "PYTHON", "DJANGO_SETTINGS_MODULE")

#: Where the shared process listens, and the variables that were in effect before its first line, as JSON. A
#: variable of the tests, so it reaches all processes of a run but no program.
_SHARED = "NOTIFIER_TEST_FORKS"

_servers: dict[frozenset[tuple[str, str]], ForkServer] = {}
_lock = Lock()
_sharing: list[tuple[socket.socket, Thread]] = []


class SharedFork(ForkServer):
    """A fork of the shared process, and our end of the socket to it. It ends with the socket."""

    def __init__(self, path: str) -> None:
        self._lock = Lock()
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.connect(path)

    def close(self) -> None:
        self._line.close()

    def _why_not(self) -> str:
        return " the first process of the run says why"


def share(folder: Path) -> None:
    """From now on the processes that we start, and we ourselves, share one forking process. `close` ends it."""
    if sys.platform != "linux" or is_full():
        return
    path, own = folder / "forks", dict(os.environ)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen()
    thread = Thread(target=_let_in, args=(listener, path, ForkServer(own, cwd=_ROOT)))
    thread.start()
    _sharing.append((listener, thread))
    os.environ[_SHARED] = json.dumps([str(path), sorted(_key(own))])


def _let_in(listener: socket.socket, path: Path, server: ForkServer) -> None:
    command = [sys.executable, "-m", forking.__name__, "0", forking.NONE_OUTLIVES]
    forks = []
    with listener:
        try:
            while True:
                line, _ = listener.accept()
                with line:
                    forks.append(server.launch(command, stdin=line, cwd=_ROOT))
        except OSError:
            pass  # `close` has shut it down.
        except ServiceUnavailable as error:
            print(error, file=sys.stderr)
    path.unlink(missing_ok=True)
    server.close()
    for one in forks:
        one.wait()


def launch(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
    """Start a program, like `subprocess.Popen`. A forked one always has a session of its own."""
    return subprocess.Popen(command, **options) if is_full() or not can_fork(command) else fork(command, **options)


def fork(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
    return _server_for(dict(options.get("env") or os.environ)).launch(command, **options)


def run(
    command: Sequence[str | Path],
    *,
    input: Any = None,  # noqa: A002 - as in subprocess
    capture_output: bool = False,
    check: bool = False,
    timeout: float | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a program, like `subprocess.run`."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with launch(command, **options) as process:
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        finally:
            process.kill()
    done = subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
    if check:
        done.check_returncode()
    return done


@atexit.register
def close() -> None:
    """End the forking processes, and everything that they have forked. Safe to repeat."""
    with _lock:
        while _servers:
            _servers.popitem()[1].close()
        while _sharing:
            os.environ.pop(_SHARED, None)
            listener, thread = _sharing.pop()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _key(environment: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in environment.items() if name.startswith(_BEFORE_PYTHON))


def _shared_for(key: frozenset[tuple[str, str]]) -> str | None:
    """The socket of a shared process with exactly these variables; None: there is none."""
    path, pairs = json.loads(os.environ.get(_SHARED, "[null, []]"))
    return path if path and key == frozenset(map(tuple, pairs)) else None


def _server_for(environment: Mapping[str, str]) -> ForkServer:
    key = _key(environment)
    with _lock:
        if key not in _servers and (path := _shared_for(key)):
            _servers[key] = SharedFork(path)
        if key not in _servers:
            imports = _IMPORTS_OF_DJANGO if "DJANGO_SETTINGS_MODULE" in environment else ()
            _servers[key] = ForkServer(environment, imports, cwd=_ROOT)
        return _servers[key]
