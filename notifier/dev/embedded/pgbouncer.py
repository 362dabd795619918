"""Runs the installed pgbouncer in front of a PostgreSQL, in a folder of ours."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import make_url

from notifier.dev.embedded.postgres import accepts_connections
from notifier.dev.machine import give, launcher, server_account
from notifier.dev.processes import ServerProcess

_START_SECONDS = 20.0
_PORT = 6432


class Pgbouncer:
    """A pgbouncer with these settings; all others are its defaults. It listens on a socket in its own `folder`."""

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
        #: The database's URL through pgbouncer.
        self.url = f"postgresql://{url.username}@/{url.database}?host={host}&port={_PORT}"
        self.socket = folder / f".s.PGSQL.{_PORT}"

    @property
    def is_running(self) -> bool:
        """Whether its process is alive."""
        return self._server.is_running()

    def start(self) -> None:
        """Start it, and return when the database answers through it. Raises `ServiceUnavailable` if it does
        not."""
        self._server.start()
        self._server.wait_until(lambda: accepts_connections(self.url), _START_SECONDS)

    def stop(self) -> None:
        """Send SIGTERM, which closes every connection at once. Safe to repeat."""
        self._server.stop()

    def kill(self) -> None:
        """Send SIGKILL. Returns when the process is gone."""
        if self._server.pid is not None:
            os.kill(self._server.pid, signal.SIGKILL)
        self._server.stop()


def _configuration(database_url: str, folder: Path, settings: Mapping[str, str]) -> str:
    url = make_url(database_url)
    place = {
        "host": url.host or url.query.get("host"),
        "port": url.port or url.query.get("port") or 5432,
        "user": url.username,
        "password": url.password,
    }
    target = " ".join(f"{name}='{value}'" for name, value in place.items() if value)
    # `any`: everybody who reaches the socket is let in, and only the folder's owner reaches it.
    own = {"unix_socket_dir": folder, "listen_port": _PORT, "auth_type": "any", **settings}
    lines = "\n".join(f"{name} = {value}" for name, value in own.items())
    return f"[databases]\n* = {target}\n\n[pgbouncer]\n{lines}\n"
