"""Runs a node of the installed RabbitMQ in a folder of ours."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import amqp

from notifier.dev.embedded.binaries import find_rabbitmq
from notifier.dev.embedded.server import EmbeddedServer
from notifier.dev.machine import free_port, is_free, private_opener
from notifier.dev.processes import ServerProcess, StopPlan, end_leftover
from notifier.domain.errors import MissingPackage, ServiceUnavailable

USER = "notifier"

#: No epmd that stays behind, and nothing that listens on the network.
PRIVATE = ("-start_epmd", "false", "-kernel", "inet_dist_use_interface", "{127,0,0,1}")

_START_SECONDS = 90.0
#: How often to try, each time with new ports.
_TRIES = 3
_STOP_PLAN: StopPlan = ((signal.SIGTERM, 15.0),)
_NOT_INSTALLED = (
    "RabbitMQ is not installed: sudo apt-get install rabbitmq-server (macOS: brew install rabbitmq), or leave "
    "--broker out, which needs nothing"
)


class EmbeddedRabbitmq(EmbeddedServer):
    """RabbitMQ in `<data_dir>/rabbitmq`: on 127.0.0.1, with a password, on a port that stays the same while it is
    free.

    It never touches a RabbitMQ that the machine runs as a service: it has its own node, ports, epmd, cookie,
    configuration and data. Without `script` it uses the installed one.
    """

    #: It is alone, so the name may be the same everywhere. The data is stored under this name.
    node = f"{USER}@localhost"

    def __init__(self, data_dir: Path, script: Path | None = None) -> None:
        super().__init__(data_dir, "rabbitmq", "RabbitMQ")
        self._script = script
        self._configuration = self.home / "rabbitmq.conf"
        self._pid_file = self.home / "rabbitmq.pid"
        self._plugins = self.home / "plugins"
        self._port = 0
        self._password = ""
        self._epmd_port = self._distribution_port = 0
        self._epmd: ServerProcess | None = None

    def _end_processes(self) -> None:
        super()._end_processes()
        if self._epmd:
            self._epmd.stop()
            self._epmd = None

    def url_of(self, vhost: str) -> str:
        return f"amqp://{USER}:{self._password}@127.0.0.1:{self._port}/{quote(vhost, safe='')}"

    def kept_url(self) -> str | None:
        """Its URL of the last run; None: it was never started."""
        known = self._port_and_password()
        return f"amqp://{USER}:{known[1]}@127.0.0.1:{known[0]}/%2F" if known else None

    def environment(self) -> dict[str, str]:
        """The environment for this node's programs, without the machine's settings (/etc/rabbitmq, RABBITMQ_*,
        ~/.erlang.cookie)."""
        # In a thread, while tests set and remove variables: a name may be gone by the time its value is read.
        names = [name for name in os.environ if not name.startswith(("RABBITMQ_", "ERL_"))]
        inherited = {name: value for name in names if (value := os.environ.get(name)) is not None}
        return inherited | {
            "HOME": str(self.home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.home / "data"),
            "RABBITMQ_LOG_BASE": str(self.home / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.home / "generated"),
            "RABBITMQ_PID_FILE": str(self._pid_file),
            "RABBITMQ_CONFIG_FILE": str(self._configuration),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.home / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.home / "environment.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(PRIVATE),
            **({"RABBITMQ_PLUGINS_DIR": str(self._plugins)} if self._plugins.exists() else {}),
        }

    def _start(self) -> str:
        self._script = self._script or find_rabbitmq()
        if self._script is None:
            raise MissingPackage(_NOT_INSTALLED)
        self.home.mkdir(mode=0o700, exist_ok=True)
        end_leftover(self._last_pid(), str(self.home), _STOP_PLAN)
        known = self._port_and_password()
        self._password = known[1] if known else secrets.token_urlsafe(16)
        self._port = known[0] if known and is_free(known[0]) else free_port()
        for _ in range(_TRIES - 1):
            try:
                return self._run()
            except ServiceUnavailable as error:
                # Another program took a port after we looked and before the server listened, which takes seconds.
                if "eaddrinuse" not in str(error):
                    raise
            self._end_processes()
            self._port = free_port()
        return self._run()

    def _run(self) -> str:
        self._write_files()
        self._start_epmd()
        self._start_server()
        return self.url_of("/")

    def _write_files(self) -> None:
        cookie = self.home / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(16))
            cookie.chmod(0o400)
        with open(self._configuration, "w", encoding="utf-8", opener=private_opener) as file:
            file.write(
                f"listeners.tcp.default = 127.0.0.1:{self._port}\n"
                f"default_user = {USER}\ndefault_pass = {self._password}\n"
            )
        (self.home / "enabled_plugins").write_text("[].\n")
        (self.home / "environment.conf").touch()
        (self.home / "log").mkdir(exist_ok=True)
        self._leave_plugins_out()

    def _leave_plugins_out(self) -> None:
        """Leave out the plugins. None is enabled, but a node that reads the descriptions of all sixty takes a
        third longer to start. RabbitMQ's own core is among them, with the names of its settings."""
        assert self._script is not None
        shutil.rmtree(self._plugins, ignore_errors=True)
        cores = list(self._script.resolve().parents[1].glob("plugins/rabbit-[0-9]*/"))
        # Otherwise it is installed in another way, and reads them all.
        if len(cores) == 1:
            self._plugins.mkdir()
            (self._plugins / cores[0].name).symlink_to(cores[0])

    def _start_epmd(self) -> None:
        """Start epmd in the foreground as our child. Otherwise Erlang starts one that stays for ever."""
        self._epmd_port, self._distribution_port = free_port(), free_port()
        port = str(self._epmd_port)
        self._epmd = self._process("epmd", [_epmd_binary(), "-port", port, "-address", "127.0.0.1"])
        self._epmd.start()
        self._epmd.wait_until(lambda: not is_free(self._epmd_port), 10)

    def _start_server(self) -> None:
        assert self._script is not None
        self._server = self._process("RabbitMQ", [self._script])
        self._server.start()
        self._server.wait_until(lambda: accepts_amqp(self.url_of("/")), _START_SECONDS)

    def _process(self, name: str, command: list[str | Path]) -> ServerProcess:
        return ServerProcess(
            name,
            command,
            log=self.home / f"{name.lower()}.log",
            stop_plan=_STOP_PLAN,
            cwd=self.home,
            env=self.environment(),
        )

    def _port_and_password(self) -> tuple[int, str] | None:
        try:
            text = self._configuration.read_text("utf-8")
        except OSError:
            return None
        found = re.search(r"127\.0\.0\.1:(\d+)\n[^\n]*\ndefault_pass = (\S+)\n", text)
        return (int(found[1]), found[2]) if found else None

    def _last_pid(self) -> int:
        try:
            return int(self._pid_file.read_text("ascii"))
        except (OSError, ValueError):
            return 0


@contextlib.contextmanager
def amqp_connection(url: str) -> Iterator[amqp.Connection]:
    """An open connection of the plain protocol library."""
    parts = urlsplit(url)
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port or 5672}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/",
        connect_timeout=5,
    )
    try:
        connection.connect()
        yield connection
    finally:
        connection.close()


def _epmd_binary() -> str | Path:
    """On PATH, or beside the real `erl`."""
    found = shutil.which("epmd")
    return found or Path(shutil.which("erl") or "erl").resolve().with_name("epmd")


def accepts_amqp(url: str) -> bool:
    """Whether a client can log in."""
    try:
        with amqp_connection(url):
            return True
    except (OSError, amqp.AMQPError):
        return False
