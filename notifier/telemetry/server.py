"""Serves `/metrics` and `/healthz` of a process, from a separate thread, for as long as the process lives.

It asks neither database nor broker: while they are unreachable, this process is healthy all the same. `/healthz`
says 503 after a loop of the process has stopped turning. No key is needed: whoever reaches the port reads counts,
and nothing about people.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from socket import AF_INET, AF_INET6
from socketserver import TCPServer
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from notifier.domain.errors import ConfigurationError
from notifier.telemetry.liveness import LIVENESS, Liveness
from notifier.telemetry.metrics import REGISTRY

#: A client that sends nothing for this long is disconnected. Seconds.
CLIENT_SECONDS = 10

_StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class MetricsServer:
    """Answers from its creation until `close` or the end of the process."""

    def __init__(self, host: str, port: int, program: str, liveness: Liveness = LIVENESS) -> None:
        """`program` is the name in the answer of `/healthz`. Raises `ConfigurationError` if the address is not
        free."""
        kind = _IPv6Server if ":" in host else _Server
        try:
            self._server = make_server(host, port, partial(_answer, program, liveness), kind, _Handler)
        except OSError as error:
            raise ConfigurationError(
                f"nothing can serve metrics on {host}:{port} ({error.strerror}): does another program have this "
                "port? set NOTIFIER_METRICS_PORT, or --metrics-port, to one of this program's own",
                setting="NOTIFIER_METRICS_PORT",
            ) from None
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingWSGIServer):
    address_family = AF_INET

    def server_bind(self) -> None:
        # HTTPServer's own method looks up the name of the host, so a slow name server would delay the start.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Does nothing: the client has left, or was silent for too long."""


class _IPv6Server(_Server):
    address_family = AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def address_string(self) -> str:
        return str(self.client_address[0])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Does nothing: a line for each scrape helps nobody."""


_metrics = make_wsgi_app(REGISTRY)


def _answer(
    program: str, liveness: Liveness, environ: dict[str, Any], start_response: _StartResponse
) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/metrics":
        found: Iterable[bytes] = _metrics(environ, start_response)
        return found
    if path == "/healthz":
        status, answer = _health(program, liveness)
    else:
        status, answer = "404 Not Found", {"status": "there are /metrics and /healthz"}
    body = json.dumps(answer).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _health(program: str, liveness: Liveness) -> tuple[str, dict[str, str]]:
    stalled = [f"{loop} for {age:.0f} s" for loop, age in liveness.stalled().items()]
    if not stalled:
        return "200 OK", {"status": "ok", "program": program}
    return "503 Service Unavailable", {"status": f"stalled: {', '.join(stalled)}", "program": program}
