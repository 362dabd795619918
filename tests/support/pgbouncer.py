"""A private pgbouncer before the tests' PostgreSQL, on a Unix socket in a folder of its own.

Where none is installed, Debian's package is installed (its service is not started), as for RabbitMQ.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy.engine import make_url

from notifier.dev.machine import give, launcher, server_account
from notifier.dev.processes import ServerProcess
from tests.provisioning.install import apt_install, can_apt_install
from tests.waiting import wait_until

_PORT = 6432


def find_pgbouncer() -> Path | None:
    """Its program; Debian puts it where root alone has its path."""
    found = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    return Path(found) if found else None


def find_or_install_pgbouncer() -> Path | None:
    """Its program, after an installation where that may be done."""
    if find_pgbouncer() is None and can_apt_install():
        apt_install("pgbouncer")
    return find_pgbouncer()


def pgbouncer_or_skip() -> Path:
    """The same; a test without it is skipped."""
    program = find_or_install_pgbouncer()
    if program is None:
        pytest.skip("needs pgbouncer: run `sudo apt-get install pgbouncer` (macOS: `brew install pgbouncer`)")
    return program


class Pgbouncer:
    """One with these settings before a PostgreSQL; all others are its defaults. `folder` is there, and its own."""

    def __init__(self, program: Path, database_url: str, folder: Path, settings: Mapping[str, str]) -> None:
        account = server_account()
        give(folder, account)
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(_configuration(database_url, folder, settings))
        configuration.chmod(0o644)
        self._server = ServerProcess(
            "pgbouncer",
            [program, configuration],
            log=folder / "out.log",
            stop_plan=[(signal.SIGTERM, 5.0)],
            cwd=folder,
            launch=launcher(account),
        )
        url = make_url(database_url)
        host = quote(str(folder), safe="")
        #: The database, through it.
        self.url = f"postgresql://{url.username}@/{url.database}?host={host}&port={_PORT}"
        self.socket = folder / f".s.PGSQL.{_PORT}"

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._server.is_running()

    def start(self) -> None:
        """Return when the database answers through it."""
        self._server.start()
        wait_until(lambda: _answers(self.url), timeout=20)

    def stop(self) -> None:
        """SIGTERM: every connection is closed at once. Safe to repeat."""
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL. Returns when it is gone."""
        if self._server.pid is not None:
            os.kill(self._server.pid, signal.SIGKILL)
        self._server.stop()


@contextmanager
def pgbouncer(program: Path, database_url: str, settings: Mapping[str, str]) -> Iterator[Pgbouncer]:
    """A running one, in a folder of its own."""
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
    """URL of the database through a pgbouncer with these settings; all others are its defaults."""
    with pgbouncer(pgbouncer_or_skip(), database_url, {"pool_mode": pool_mode, **settings}) as server:
        yield server.url


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _configuration(database_url: str, folder: Path, settings: Mapping[str, str]) -> str:
    url = make_url(database_url)
    place = {
        "host": url.host or url.query.get("host"),
        "port": url.port or url.query.get("port") or 5432,
        "user": url.username,
        "password": url.password,
    }
    target = " ".join(f"{name}='{value}'" for name, value in place.items() if value)
    # `any`: whoever reaches the socket is let in, and only the owner of the folder does.
    own = {"unix_socket_dir": folder, "listen_port": _PORT, "auth_type": "any", **settings}
    lines = "\n".join(f"{name} = {value}" for name, value in own.items())
    return f"[databases]\n* = {target}\n\n[pgbouncer]\n{lines}\n"
