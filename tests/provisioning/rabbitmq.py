"""A RabbitMQ of our own: found, installed or in a container, with an empty virtual host per test.

The one that the machine may run as a service is never touched: ours has its own node name, ports, epmd, cookie,
configuration and data.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

import amqp

from notifier.broker import topology
from notifier.dev.machine import free_port, is_free
from notifier.dev.processes import ServerProcess

_USER = "notifier"
_START_SECONDS = 90.0
# No epmd that stays behind, and no ear on the network.
_PRIVATE = "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"

# Reads Erlang expressions, one a line, and answers with one line each. rabbitmqctl would take a second for each of
# them; this takes milliseconds. Other output of the runtime is told apart by the "> ".
_SHELL = """
Loop = fun Next() ->
  case io:get_line("") of
    eof -> halt();
    Line ->
      {ok, Tokens, _} = erl_scan:string(Line),
      {ok, Expressions} = erl_parse:parse_exprs(Tokens),
      Value = try element(2, erl_eval:exprs(Expressions, [])) catch _:Reason -> {failed, Reason} end,
      io:format("> ~0p~n", [Value]),
      Next()
  end
end,
Loop().
"""


class AmqpServer(Protocol):
    """A RabbitMQ that tests may use."""

    @property
    def url(self) -> str:
        """URL of its default virtual host."""

    def make_vhost(self) -> str:
        """URL of a virtual host with nothing in it."""

    def drop_vhost(self, url: str) -> None:
        """Take away what a test left there."""

    def stop(self) -> None:
        """Leave nothing running."""


class PrivateRabbitmq:
    """A node of the installed RabbitMQ in a folder of its own, on 127.0.0.1 only."""

    def __init__(self, script: Path, folder: Path) -> None:
        self._script = script
        self._folder = folder
        self._password = secrets.token_urlsafe(16)
        self._port, self._distribution_port, self._epmd_port = free_port(), free_port(), free_port()
        self._node = f"notifier-test-{secrets.token_hex(4)}@localhost"
        self._epmd: ServerProcess | None = None
        self._server: ServerProcess | None = None
        self._shell: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return self._vhost_url("/")

    @property
    def pids(self) -> list[int]:
        """Everything that must be gone after `stop`."""
        servers = (self._epmd, self._server, self._shell)
        return [server.pid for server in servers if server is not None and server.pid is not None]

    def start(self) -> None:
        """Return when a client can log in."""
        try:
            self._write_files()
            self._start_epmd()
            self._start_server()
            self._start_shell()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._shell and self._shell.stdin and self._shell.stdout:
            self._shell.kill()
            self._shell.wait()
            self._shell.stdin.close()
            self._shell.stdout.close()
        for server in (self._server, self._epmd):
            if server:
                server.stop()
        self._shell = self._server = self._epmd = None

    def make_vhost(self) -> str:
        name = f"test-{secrets.token_hex(6)}"
        anything = '<<".*">>, <<".*">>, <<".*">>'
        self._call("rabbit_vhost", "add", f'<<"{name}">>, <<"tests">>')
        self._call(
            "rabbit_auth_backend_internal",
            "set_permissions",
            f'<<"{_USER}">>, <<"{name}">>, {anything}, <<"tests">>',
        )
        return self._vhost_url(name)

    @contextlib.contextmanager
    def user(
        self, url: str, name: str, *, configure: str = "^$", write: str = "^notify$", read: str = "^$"
    ) -> Iterator[str]:
        """The same virtual host as another user, who exists while the block runs; by default a producer's."""
        vhost, password = unquote(urlsplit(url).path[1:]), secrets.token_hex(16)
        self._call("rabbit_auth_backend_internal", "add_user", f'<<"{name}">>, <<"{password}">>, <<"tests">>')
        try:
            rights = ", ".join(f'<<"{pattern}">>' for pattern in (configure, write, read))
            self._call(
                "rabbit_auth_backend_internal",
                "set_permissions",
                f'<<"{name}">>, <<"{vhost}">>, {rights}, <<"tests">>',
            )
            yield f"amqp://{quote(name, safe='')}:{password}@127.0.0.1:{self._port}/{quote(vhost, safe='')}"
        finally:
            self.drop_user(name)

    def drop_user(self, name: str) -> None:
        """End one that a test made by other means."""
        self._call("rabbit_auth_backend_internal", "delete_user", f'<<"{name}">>, <<"tests">>')

    def tool_environment(self) -> dict[str, str]:
        """With these variables `rabbitmqctl` is the one of this node, not Debian's wrapper for the machine's."""
        own = self._environment()
        return own | {"PATH": f"{self._script.parent}:{own.get('PATH', os.defpath)}"}

    @contextlib.contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """The whole node takes no messages while the block runs, as when it is short of memory.

        The node tells its connections in its own time; the block begins when all that are open know.
        """
        self._call("vm_memory_monitor", "set_vm_memory_high_watermark", "0.0")
        try:
            self._wait_for_connections(lambda states: states <= {"blocking", "blocked"})
            yield
        finally:
            self._call("vm_memory_monitor", "set_vm_memory_high_watermark", "0.9")
        self._wait_for_connections(lambda states: not states & {"blocking", "blocked"})

    def drop_vhost(self, url: str) -> None:
        self._call("rabbit_vhost", "delete", f'<<"{urlsplit(url).path[1:]}">>, <<"tests">>')

    def _wait_for_connections(self, is_reached: Callable[[set[str]], bool]) -> None:
        """Until the states of all open connections are as they should be."""
        ends_at = time.monotonic() + 10
        while True:
            states = set(
                re.findall(r"\{state,(\w+)\}", self._ask("rabbit_networking", "connection_info_all", "[state]"))
            )
            if is_reached(states):
                return
            assert time.monotonic() < ends_at, f"connections are {', '.join(sorted(states))}"
            time.sleep(0.01)

    def _vhost_url(self, vhost: str) -> str:
        return f"amqp://{_USER}:{self._password}@127.0.0.1:{self._port}/{quote(vhost, safe='')}"

    def _write_files(self) -> None:
        cookie = self._folder / ".erlang.cookie"
        cookie.touch(mode=0o600)
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        configuration = self._folder / "rabbitmq.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            f"listeners.tcp.default = 127.0.0.1:{self._port}\n"
            f"default_user = {_USER}\ndefault_pass = {self._password}\n"
        )
        (self._folder / "enabled_plugins").write_text("[].\n")
        (self._folder / "environment.conf").touch()
        (self._folder / "log").mkdir()

    def _environment(self) -> dict[str, str]:
        """The machine's own RabbitMQ settings (/etc/rabbitmq, RABBITMQ_*, ~/.erlang.cookie) do not apply to us."""
        # In a thread, while tests set and remove variables: a name may be gone when its value is read.
        names = [name for name in os.environ if not name.startswith(("RABBITMQ_", "ERL_"))]
        inherited = {name: value for name in names if (value := os.environ.get(name)) is not None}
        return inherited | {
            "HOME": str(self._folder),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self._folder / "generated"),
            "RABBITMQ_PID_FILE": str(self._folder / "rabbitmq.pid"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "environment.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _PRIVATE,
        }

    def _start_epmd(self) -> None:
        """In the foreground and as our child: left to itself, Erlang starts one that stays for ever."""
        port = str(self._epmd_port)
        self._epmd = self._process("epmd", [_epmd_binary(), "-port", port, "-address", "127.0.0.1"])
        self._epmd.start()
        self._epmd.wait_until(lambda: not is_free(self._epmd_port), 10)

    def _start_server(self) -> None:
        self._server = self._process("RabbitMQ", [self._script])
        self._server.start()
        self._server.wait_until(lambda: accepts_amqp(self.url), _START_SECONDS)

    def _process(self, name: str, command: list[str | Path]) -> ServerProcess:
        return ServerProcess(
            name,
            command,
            log=self._folder / f"{name.lower()}.log",
            stop_plan=[(signal.SIGTERM, 15.0)],
            cwd=self._folder,
            env=self._environment(),
        )

    def _start_shell(self) -> None:
        name = f"shell-{secrets.token_hex(4)}@localhost"
        self._shell = subprocess.Popen(
            ["erl", "-noshell", "-hidden", "-sname", name, *_PRIVATE.split(), "-eval", _SHELL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self._environment(),
            cwd=self._folder,
            start_new_session=True,
        )

    def _call(self, module: str, function: str, arguments: str) -> None:
        answer = self._ask(module, function, arguments)
        assert answer == "ok", f"{module}:{function} answered {answer}"

    def _ask(self, module: str, function: str, arguments: str) -> str:
        """What the node answers, on one line."""
        assert self._shell is not None, "the server is not running"
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"rpc:call('{self._node}', {module}, {function}, [{arguments}]).\n")
        self._shell.stdin.flush()
        answers = (line for line in self._shell.stdout if line.startswith("> "))
        return next(answers, "> no answer").removeprefix("> ").strip()


class GivenRabbitmq:
    """One virtual host that somebody gave us: tests take turns, and it is emptied between them."""

    def __init__(self, url: str, *, stop: Callable[[], None] = lambda: None) -> None:
        self.url = url
        self._stop = stop

    def make_vhost(self) -> str:
        self.drop_vhost(self.url)
        return self.url

    def drop_vhost(self, url: str) -> None:
        """AMQP cannot list queues, so what notifier is known to declare goes."""
        pairs = list(topology.pairs())
        names = [topology.notify_queue_name(*pair) for pair in pairs]
        names += [topology.deliver_queue_name(*pair) for pair in pairs]
        with amqp_connection(url) as connection:
            channel = connection.channel()
            for name in (*names, topology.MAINTENANCE, topology.CALLBACKS, topology.DEAD_QUEUE):
                channel.queue_delete(name)
            for exchange in (topology.NOTIFY, topology.DEAD, topology.DELIVER):
                channel.exchange_delete(exchange.name)

    def stop(self) -> None:
        self._stop()


@contextlib.contextmanager
def amqp_connection(url: str) -> Iterator[amqp.Connection]:
    """An open connection of the plain protocol library."""
    parts = urlsplit(url)
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port or 5672}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/",
        ssl=parts.scheme == "amqps",
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
