"""Programs of tests within a tenth of a second, as `notifier.dev.forking` starts them. The full profile gets real
ones."""

from __future__ import annotations

import atexit
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from notifier.dev.forking import ForkServer, can_fork
from tests.profiles import is_full

_ROOT = Path(__file__).parents[2]
#: Of a program of Django, which loads none of those.
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
#: Variables that act before the first line of a program: each set of them has a process of its own that forks.
_BEFORE_PYTHON = ("LANG", "LC_", "LD_", "PYTHON", "DJANGO_SETTINGS_MODULE")

_servers: dict[frozenset[tuple[str, str]], ForkServer] = {}
_lock = Lock()


def launch(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
    """As `subprocess.Popen`; one that is forked always has a session of its own."""
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
    """As `subprocess.run`."""
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
    """Let the processes that fork end, and what they have forked. Safe to repeat."""
    with _lock:
        while _servers:
            _servers.popitem()[1].close()


def _server_for(environment: Mapping[str, str]) -> ForkServer:
    key = frozenset((name, value) for name, value in environment.items() if name.startswith(_BEFORE_PYTHON))
    with _lock:
        if key not in _servers:
            imports = _IMPORTS_OF_DJANGO if "DJANGO_SETTINGS_MODULE" in environment else ()
            _servers[key] = ForkServer(environment, imports, cwd=_ROOT)
        return _servers[key]
