"""PostgreSQL, RabbitMQ and Valkey that can be stopped, killed and restarted with the same data and address."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg

from notifier.dev.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.provisioning.rabbitmq import PrivateRabbitmq
from tests.provisioning.services import find_or_install_rabbitmq, find_postgres, find_redis

# Small, so that a disk can be filled. Every server flushes as in production.
_POSTGRES = {"max_wal_size": "64MB", "min_wal_size": "32MB", "max_connections": "150"}


class Postgres(EmbeddedPostgres):
    """PostgreSQL on a Unix socket below `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, find_postgres(), settings=_POSTGRES)

    @property
    def socket(self) -> str:
        (folder,) = parse_qs(urlsplit(self.url).query)["host"]
        return f"{folder}/.s.PGSQL.5432"

    def kill(self, number: signal.Signals) -> None:
        """Send SIGQUIT (immediate shutdown) or SIGKILL. Returns when the server's process is gone."""
        _end(self.pid, number)
        self.stop()

    def terminate_backends(self) -> int:
        """Close every session except ours, as an administrator can. Returns how many."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchone()
        return int(found[0]) if found else 0


class Rabbitmq(PrivateRabbitmq):
    """RabbitMQ. The Erlang shell and epmd stay while the node is down."""

    _alarmed = False

    @property
    def port(self) -> int:
        return self._port

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.is_running()

    def stop_node(self) -> None:
        """Send SIGTERM: it closes its connections and shuts down in order."""
        assert self._server is not None
        self._server.stop()

    def kill_node(self) -> None:
        """Send SIGKILL to the Erlang machine; the start script around it ends by itself."""
        assert self._server is not None
        assert self._server.pid is not None
        family = psutil.Process(self._server.pid).children(recursive=True)
        # Found before the first one is killed, because the others end with it.
        for pid in [process.pid for process in family if _is_beam(process)]:
            _end(pid, signal.SIGKILL)
        self._server.stop()

    def start_node(self) -> None:
        self._start_server()

    def alarm(self, *, on: bool) -> None:
        """Set the memory alarm. While it is on, nobody can publish. 0.4 is RabbitMQ's default."""
        if on is not self._alarmed:
            self._call("vm_memory_monitor", "set_vm_memory_high_watermark", "0.0" if on else "0.4")
            self._alarmed = on


class Valkey(EmbeddedValkey):
    """A Redis-protocol server with its append-only file below `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, find_redis())

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def kill(self) -> None:
        """Send SIGKILL. Returns when its process is gone."""
        _end(self.pid, signal.SIGKILL)
        self.stop()


def make_rabbitmq(folder: Path) -> Rabbitmq:
    """A node in `folder`, not started.

    Raises:
        MissingService: RabbitMQ is not installed.
    """
    folder.mkdir(mode=0o700)
    return Rabbitmq(find_or_install_rabbitmq(), folder)


def _is_beam(process: psutil.Process) -> bool:
    try:
        return bool(process.name().startswith("beam"))
    except psutil.NoSuchProcess:
        return False


def _end(pid: int | None, number: signal.Signals) -> None:
    assert pid is not None, "the server is not running"
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.send_signal(number)
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(20)
