"""A RabbitMQ of our own: found, installed or in a container, with an empty virtual host per test."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

from notifier.broker import topology
from notifier.dev.embedded.rabbitmq import PRIVATE, USER, EmbeddedRabbitmq, amqp_connection

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


class PrivateRabbitmq(EmbeddedRabbitmq):
    """A node with virtual hosts and users for tests."""

    def __init__(self, script: Path, folder: Path) -> None:
        super().__init__(folder, script)
        self._shell: subprocess.Popen[str] | None = None

    @property
    def pids(self) -> list[int]:
        """Everything that must be gone after `stop`."""
        servers = (self._epmd, self._server, self._shell)
        return [server.pid for server in servers if server is not None and server.pid is not None]

    def stop(self) -> None:
        if self._shell and self._shell.stdin and self._shell.stdout:
            self._shell.kill()
            self._shell.wait()
            self._shell.stdin.close()
            self._shell.stdout.close()
        self._shell = None
        super().stop()

    def make_vhost(self) -> str:
        name = f"test-{secrets.token_hex(6)}"
        anything = '<<".*">>, <<".*">>, <<".*">>'
        self._call("rabbit_vhost", "add", f'<<"{name}">>, <<"tests">>')
        self._call(
            "rabbit_auth_backend_internal",
            "set_permissions",
            f'<<"{USER}">>, <<"{name}">>, {anything}, <<"tests">>',
        )
        return self.url_of(name)

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
        own = self.environment()
        assert self._script is not None
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

    @contextlib.contextmanager
    def largest_message(self, size: int) -> Iterator[None]:
        """Channels that begin while the block runs may publish so many bytes at most, as with `max_message_size`
        in rabbitmq.conf."""
        [before] = re.findall(r"\d+", self._ask("application", "get_env", "rabbit, max_message_size"))
        self._limit_messages(str(size))
        try:
            yield
        finally:
            self._limit_messages(before)

    def drop_vhost(self, url: str) -> None:
        self._call("rabbit_vhost", "delete", f'<<"{urlsplit(url).path[1:]}">>, <<"tests">>')

    def _limit_messages(self, size: str) -> None:
        self._call("application", "set_env", f"rabbit, max_message_size, {size}")
        # Where RabbitMQ 4 looks.
        self._call("persistent_term", "put", f"max_message_size, {size}")

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

    def _start(self) -> str:
        url = super()._start()
        self._start_shell()
        return url

    def _start_shell(self) -> None:
        name = f"shell-{secrets.token_hex(4)}@localhost"
        self._shell = subprocess.Popen(
            ["erl", "-noshell", "-hidden", "-sname", name, *PRIVATE, "-eval", _SHELL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment(),
            cwd=self.home,
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
        self._shell.stdin.write(f"rpc:call('{self.node}', {module}, {function}, [{arguments}]).\n")
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
