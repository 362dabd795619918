"""The PostgreSQL servers of a drill: a primary, its standby, its archived log. Each has a socket in a folder of
its own.

They use the programs of the wheel that `notifier demo` uses.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from service import wait

from notifier.dev.embedded.binaries import postgres_binaries
from notifier.dev.machine import give, launcher, run_quietly, server_account, server_environment
from notifier.dev.processes import ServerProcess

#: Name of the user and of the database.
NAME = "notifier"
_START_SECONDS = 60.0
#: Number of standbys `b` of this kind: sync or async.
STREAMS = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'b' AND sync_state = '{}'"


class Postgres:
    """A server in `folder`/`name`. `settings` are given at each start."""

    def __init__(self, folder: Path, name: str, *settings: str) -> None:
        self.name = name
        self.data = folder / name / "data"
        #: The folder of its socket, which a server that replaces it may take over.
        self.socket = folder / name / "run"
        self.settings = settings
        self._account = server_account()
        self._bin = postgres_binaries(folder, self._account)
        self._log = folder / f"{name}.log"
        self._server: ServerProcess | None = None
        give(folder / name, self._account)
        give(self.socket, self._account)

    def url(self, database: str = NAME) -> str:
        return f"postgresql://{NAME}@{self.host}/{database}"

    @property
    def host(self) -> str:
        """Its host, as URLs write it."""
        return quote(str(self.socket), safe="")

    def make(self) -> None:
        """Make an empty, running cluster with our database."""
        self.run("initdb", "-D", self.data, "-U", NAME, "--encoding=UTF8", "--locale=C", "--auth=trust")
        self.start()
        self.execute(f"CREATE DATABASE {NAME}", database="postgres")

    def copy(self, source: Postgres, *options: str) -> None:
        """Make it from a base backup of a running server."""
        origin = f"host={source.socket} user={NAME} application_name={self.name}"
        self.run("pg_basebackup", f"--dbname={origin}", "-D", self.data, "--checkpoint=fast", *options)

    def start(self) -> None:
        """Start it. Returns when it answers."""
        own = ("listen_addresses=", f"unix_socket_directories={self.socket}", "max_connections=200")
        options = [part for setting in (*own, *self.settings) for part in ("-c", setting)]
        self._server = ServerProcess(
            self.name,
            [self._bin / "postgres", "-D", self.data, *options],
            log=self._log,
            stop_plan=[(signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0)],
            cwd=self.data,
            env=server_environment(),
            launch=launcher(self._account),
        )
        self._server.start()
        self._server.wait_until(self._answers, _START_SECONDS)

    def stop(self) -> None:
        """Fast shutdown. Safe to repeat."""
        if self._server is not None:
            self._server.stop()

    def kill(self) -> None:
        """Send SIGKILL to all its processes at once, as if its machine died."""
        assert self._server is not None
        assert self._server.pid is not None
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.stop()

    def promote(self) -> None:
        """Make a standby a primary. Returns when it accepts writes."""
        self.run("pg_ctl", "promote", "-D", self.data)

    def touch(self, name: str) -> None:
        """Make an empty file in its data folder that belongs to the server's user."""
        path = self.data / name
        path.touch()
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)

    def execute(self, *statements: str, database: str = NAME) -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def ask(self, statement: str) -> str:
        """The single value that the statement returns."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            row = connection.execute(statement.encode()).fetchone()
        return str(row[0] if row else "")

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of PostgreSQL's own programs, as the server's user."""
        done = run_quietly([self._bin / program, *arguments], self._account)
        if done.returncode:
            raise SystemExit(f"{program} failed: {done.stdout}{done.stderr}")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def stopped_at_end(*servers: Postgres) -> Iterator[Sequence[Postgres]]:
    try:
        yield servers
    finally:
        for server in servers:
            server.stop()


@contextmanager
def streaming_pair(folder: Path) -> Iterator[tuple[Postgres, Postgres]]:
    """A running primary `a`, and a running `b` that streams from it asynchronously."""
    with stopped_at_end(Postgres(folder, "a"), Postgres(folder, "b")) as (a, b):
        a.make()
        b.copy(a, "--write-recovery-conf")
        b.start()
        wait("the standby streams", lambda: a.ask(STREAMS.format("async")) == "1")
        yield a, b
