"""PostgreSQL and RabbitMQ of our own, as durable as in production, and the same for all subjects."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from notifier.dev.embedded import EmbeddedPostgres
from notifier.dev.embedded.rabbitmq import amqp_connection
from tests.provisioning.databases import Databases
from tests.provisioning.rabbitmq import PrivateRabbitmq
from tests.provisioning.services import find_or_install_rabbitmq, find_postgres

#: Every commit is on disk before it is answered. The rest is what a small server of one's own would have.
DURABLE: Mapping[str, str] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "max_connections": "300",
    "track_io_timing": "off",
}
#: Only while ten million rows are made whose loss would not matter.
FILLING: Mapping[str, str] = {
    **DURABLE,
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "16GB",
    "maintenance_work_mem": "1GB",
    "autovacuum": "off",
}


class Postgres:
    """PostgreSQL on a Unix socket below `folder`; it can be restarted with other settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: EmbeddedPostgres | None = None
        self.url = ""

    def start(self, settings: Mapping[str, str] = DURABLE) -> None:
        """Start, or restart, with these settings."""
        self.stop()
        self._server = EmbeddedPostgres(self._folder, find_postgres(), settings=settings)
        self.url = self._server.start()

    def stop(self) -> None:
        """End it. Safe to repeat."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    @property
    def pid(self) -> int | None:
        """Process id of the server."""
        return self._server.pid if self._server else None

    def databases(self) -> Databases:
        """A maker of databases on this server."""
        return Databases(self.url)

    def checkpoint(self) -> None:
        """Write everything that is dirty now, so that no subject pays for what another one left."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def connections(self) -> int:
        """Number of client connections, without this one."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchone()
        return int(found[0]) if found else 0

    def written(self) -> tuple[float, float]:
        """Bytes of the write-ahead log, and writing transactions, so far."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(
                "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0'), "
                "CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)"
            ).fetchone()
        assert row is not None
        return float(row[0]), float(row[1])

    def version(self) -> str:
        """The server's version, as it says itself."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SHOW server_version").fetchone()
        return str(found[0]) if found else "unknown"


def make_rabbitmq(folder: Path) -> PrivateRabbitmq:
    """A node in `folder`, not started.

    Raises:
        MissingService: RabbitMQ is not installed and cannot be.
    """
    folder.mkdir(mode=0o700)
    return PrivateRabbitmq(find_or_install_rabbitmq(), folder)


def rabbitmq_version(url: str) -> str:
    """The version that the broker tells clients."""
    with amqp_connection(url) as connection:
        return str(connection.server_properties.get("version", "unknown"))


def ended(process: subprocess.Popen[Any], seconds: float = 15.0) -> None:
    """Send SIGTERM, then SIGKILL, to one of our processes. Returns when it is gone."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
