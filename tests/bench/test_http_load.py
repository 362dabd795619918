"""The load over HTTP counts what is answered, tells what is refused, and sees where an answer ends."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from bench.http_load import Load, is_whole, requests
from tests.waiting import patient

ROOT = Path(__file__).parents[2]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 202
    taken = 0
    lock = threading.Lock()

    def do_POST(self) -> None:
        entries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            type(self).taken += len(entries.get("batch", [0]))
        self.send_response(self.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    class Handler(_Handler):
        pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def run(load: Load) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.http_load"],
        input=json.dumps(asdict(load)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=patient(60),
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("batch", [1, 10])
def test_load_counts_what_the_server_took(server: Any, batch: int) -> None:
    found = run(Load(server.server_port, "/", connections=4, seconds=0.3, warm_seconds=0.1, batch=batch))
    assert found["accepted"] == server.RequestHandlerClass.taken > 0
    assert (found["refused"], found["unanswered"]) == ({}, 0)


def test_load_tells_what_was_refused(server: Any) -> None:
    server.RequestHandlerClass.status = 429
    found = run(Load(server.server_port, "/", connections=2, seconds=0.1, warm_seconds=0.0))
    assert found["accepted"] == 0
    assert found["refused"]["HTTP/1.1 429 Too Many Requests"] > 0


def test_answer_is_whole_with_the_last_byte_of_its_body() -> None:
    answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\n\r\nabcd"
    assert [is_whole(answer[:end]) for end in (10, len(answer) - 1, len(answer))] == [False, False, True]


def test_requests_hold_the_token_and_differ() -> None:
    made = list(islice(requests(Load(1, "/v1/notifications", 1, 1.0, batch=3, token="secret-1")), 500))
    assert all(b"\r\nAuthorization: Bearer secret-1\r\n" in one for one in made)
    keys = [
        entry["idempotency_key"] for one in made for entry in json.loads(one.partition(b"\r\n\r\n")[2])["batch"]
    ]
    assert len(set(keys)) == 3 * 500


def test_length_of_a_request_is_that_of_its_body() -> None:
    one = next(requests(Load(1, "/", 1, 1.0)))
    head, _, body = one.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
