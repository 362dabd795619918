"""A producer's endpoint: a local HTTP or HTTPS server that keeps what it receives, and answers as it is told."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.waiting import patient


@dataclass(frozen=True)
class Got:
    """One received request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Say:
    """One answer to give."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: The answer waits for this event.
    gate: threading.Event | None = None


class Receiver:
    """The endpoint. It has a `port`, what it `got`, and what it answers: the next of `answers`, then
    `otherwise`."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.answers: list[Say] = []
        self.otherwise = Say()
        #: Called with each request and its answer, before the answer is sent.
        self.look: Callable[[Got, Say], None] = lambda _got, _say: None
        self.port = 0
        #: Maximum concurrent requests so far.
        self.most = 0
        self._under_way = 0
        self._lock = threading.Lock()

    def take(self, path: str, headers: Message, body: bytes) -> Say:
        got = Got(path, {name.lower(): value for name, value in headers.items()}, body)
        with self._lock:
            self.got.append(got)
            self._under_way += 1
            self.most = max(self.most, self._under_way)
            say = self.answers.pop(0) if self.answers else self.otherwise
        self.look(got, say)
        if say.gate is not None:
            say.gate.wait(patient(30))
        with self._lock:
            self._under_way -= 1
        return say


@contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A running endpoint on 127.0.0.1."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            say = found.take(self.path, self.headers, body)
            try:
                self.send_response(say.status)
                for name, value in {"Content-Length": str(len(say.body)), **say.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(say.body)
            except OSError:
                self.close_connection = True

        def log_message(self, *args: object) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 100

        def handle_error(self, request: object, client_address: object) -> None:
            """Does nothing: callers that hang up are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    found.port = server.server_address[1]
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
