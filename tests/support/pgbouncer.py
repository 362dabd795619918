"""A private pgbouncer in front of the tests' PostgreSQL, on a Unix socket in a folder of its own.

If none is installed, Debian's package is installed (its service is not started), as for RabbitMQ.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from notifier.dev.embedded.binaries import find_pgbouncer
from notifier.dev.embedded.pgbouncer import Pgbouncer
from tests.provisioning.install import apt_install, can_apt_install


def find_or_install_pgbouncer() -> Path | None:
    """The pgbouncer program, installed first if that is allowed; None: there is none."""
    if find_pgbouncer() is None and can_apt_install():
        apt_install("pgbouncer")
    return find_pgbouncer()


def pgbouncer_or_skip() -> Path:
    """The pgbouncer program; the test is skipped if there is none."""
    program = find_or_install_pgbouncer()
    if program is None:
        pytest.skip("needs pgbouncer: run `sudo apt-get install pgbouncer` (macOS: `brew install pgbouncer`)")
    return program


@contextmanager
def pgbouncer(program: Path, database_url: str, settings: Mapping[str, str]) -> Iterator[Pgbouncer]:
    """A running pgbouncer, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="notifier-pgb-"))
    try:
        server = Pgbouncer(program, database_url, folder, settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_pgbouncer(database_url: str, *, pool_mode: str = "transaction", **settings: str) -> Iterator[str]:
    """The database's URL through a pgbouncer with these settings; all others are its defaults."""
    with pgbouncer(pgbouncer_or_skip(), database_url, {"pool_mode": pool_mode, **settings}) as server:
        yield server.url
