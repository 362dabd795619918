"""The HTTP API on a test's own database: called without a socket, or run as a process."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import uvicorn
from fastapi import FastAPI

from notifier.api.app import make_app
from notifier.api.connection import ClientConnection
from notifier.api.dependencies import ApiServices, make_services
from notifier.api.server import server_config
from notifier.api.timeouts import ClientTimeouts
from notifier.bootstrap import Services
from notifier.config.settings import Settings
from notifier.config.structure import Structure
from notifier.dev.machine import free_port
from notifier.domain.statuses import Channel, Lane
from notifier.operations.api_keys import Grants, Scope
from notifier.operations.jobs import Jobs
from notifier.runtime.connection_limit import ConnectionLimit, raise_file_limit
from tests.support import forking
from tests.waiting import patient, wait_until


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    #: Number of pieces in which it was sent.
    pieces: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Handed:
    """Takes the place of whatever publishes tasks, and keeps what it is given."""

    tasks: list[tuple[Channel, Lane, tuple[UUID, ...]]] = field(default_factory=list)

    def put(self, channel: Channel, lane: Lane, ids: Sequence[UUID]) -> None:
        self.tasks.append((channel, lane, tuple(ids)))


class Api:
    """Calls the application, with a key made for each set of grants."""

    def __init__(
        self,
        database_url: str,
        templates: Path,
        broker_url: str = "amqp://127.0.0.1:1/",
        structure: dict[str, Any] | None = None,
        timeouts: ClientTimeouts = ClientTimeouts(),  # noqa: B008 - it cannot change
        **more: Any,
    ) -> None:
        content = structure or {"senders": {"default": {"email": "shop@example.com"}}}
        settings = Settings(
            database_url=database_url,
            broker_url=broker_url,
            templates=templates,
            structure=Structure.model_validate(content),
            **more,
        )
        self.services = Services(settings)
        self.handed = Handed()
        self.parts: ApiServices = make_services(self.services, self.handed)  # type: ignore[arg-type]
        self.app: FastAPI = make_app(self.parts, timeouts=timeouts)

    def key(self, *scopes: Scope, producer: str | None = "shop", **grants: Any) -> str:
        """The token of a new key."""
        made = self.parts.keys.create(Grants(scopes, producer or "ops", producer, **grants), operator="ann")
        return made.token

    def __call__(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        json_body: Any = None,
        body: bytes | Sequence[bytes] = b"",
        headers: Mapping[str, str | bytes] | None = None,
        **query: Any,
    ) -> Reply:
        sent = {**({"authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent.setdefault("content-type", "application/json")
        chunks = [body] if isinstance(body, bytes) else list(body)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": urlencode(query, doseq=True).encode(),
            "root_path": "",
            "headers": [
                (name.lower().encode(), value.encode() if isinstance(value, str) else value)
                for name, value in sent.items()
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        return asyncio.run(self._call(scope, chunks))

    async def _call(self, scope: dict[str, Any], chunks: list[bytes]) -> Reply:
        waiting, messages = list(chunks), []
        is_over = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if waiting:
                chunk = waiting.pop(0)
                return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}
            await is_over.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            messages.append(message)

        try:
            await self.app(scope, receive, send)
        finally:
            is_over.set()
        headers: dict[str, str] = {}
        for name, value in messages[0]["headers"]:
            # Several lines with one name are cookies.
            said = headers.get(name.decode())
            headers[name.decode()] = f"{said}\n{value.decode()}" if said else value.decode()
        _check_documented(scope, messages[0]["status"])
        bodies = [message.get("body", b"") for message in messages[1:]]
        return Reply(messages[0]["status"], headers, b"".join(bodies), sum(map(bool, bodies)))

    def close(self) -> None:
        self.parts.acceptance.close()
        self.services.close()


def run_all(jobs: Jobs, ids: Sequence[UUID]) -> None:
    """Run these jobs as a worker does."""
    for id_ in ids:
        jobs.run(id_)


@cache
def _documented() -> dict[str, dict[str, Any]]:
    """The OpenAPI document: path → method → operation."""
    return make_app().openapi()["paths"]  # type: ignore[no-any-return]


def _check_documented(scope: dict[str, Any], status: int) -> None:
    """Fail unless the answer is in the OpenAPI document; applied to every answer in every test."""
    path = str(getattr(scope.get("route"), "path_format", None))
    operation = _documented().get(path, {}).get(scope["method"].lower())
    assert operation is None or str(status) in operation["responses"], (
        f"{scope['method']} {path} answered {status}, which the OpenAPI document does not list"
    )


@contextmanager
def served(app: FastAPI, timeouts: ClientTimeouts, *, most: int = 1000, most_of_peer: int = 1000) -> Iterator[int]:
    """The application on a port of its own, in a thread, as `notifier api` serves it."""
    limit: ConnectionLimit[ClientConnection] = ConnectionLimit(most, most_of_peer)
    server = uvicorn.Server(server_config(app, limit, timeouts, grace_seconds=30))
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        # Small, so that a client that does not read is noticed soon.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(timeout=patient(30))
            assert not thread.is_alive()


@dataclass
class RunningApi:
    """An API process that answers."""

    url: str
    process: subprocess.Popen[bytes]
    is_killed: bool = False

    def kill(self) -> None:
        """End it without giving it time to do anything."""
        self.is_killed = True
        self.process.kill()
        self.process.wait()


@contextmanager
def running_api(database_url: str, broker_url: str, folder: Path, **environment: str) -> Iterator[RunningApi]:
    """`notifier api` as a process on a port of its own. At the end it must stop by itself, unless it was
    killed."""
    port, log = free_port(), folder / "api.log"
    settings = {
        "NOTIFIER_DATABASE_URL": database_url,
        "NOTIFIER_BROKER_URL": broker_url,
        "NOTIFIER_API_PORT": str(port),
        "NOTIFIER_DATA_DIR": str(folder),
        **environment,
    }
    with log.open("wb") as output:
        process = forking.launch(
            [sys.executable, "-m", "notifier", "api"],
            env={**os.environ, **settings},
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: process.poll() is not None or _answers(f"{url}/healthz"), timeout=30)
        assert process.poll() is None, log.read_text()
        api = RunningApi(url, process)
        yield api
        if not api.is_killed:
            process.terminate()
            assert process.wait(timeout=patient(30)) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@contextmanager
def idle_connections(port: int, count: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """This many connections to a server of this machine, on which `said` was sent and nothing more."""
    assert raise_file_limit() > count + 100, f"{count} connections need more file descriptors: ulimit -Hn"
    with ExitStack() as stack:
        peers = []
        for _ in range(count):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=patient(30)))
            if said:
                peer.sendall(said)
            peers.append(peer)
        yield peers


def call(
    method: str, url: str, *, key: str | None = None, json_body: Any = None, headers: dict[str, str] | None = None
) -> Reply:
    """Make a request over a socket."""
    sent = {**({"authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
    data = None if json_body is None else json.dumps(json_body).encode()
    if data is not None:
        sent.setdefault("content-type", "application/json")
    request = urllib.request.Request(url, data, sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=patient(30)) as answer:
            return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read(), 1)
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read(), 1)


def _answers(url: str) -> bool:
    try:
        return call("GET", url).status == 200
    except OSError:
        return False
