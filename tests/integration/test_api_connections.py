"""Clients that say nothing, little, or too much, on real sockets: nobody else waits for them."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest

from notifier.api.connection import CHUNK_BYTES, MAX_CHUNKS
from notifier.api.timeouts import ClientTimeouts
from notifier.operations.api_keys import Scope
from tests.support.api import Api, idle_connections, served
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until

QUICK = ClientTimeouts(
    head=0.4, keep_alive=0.4, rest=0.4, body=0.4, body_bytes=1_000_000, answer=0.4, place=0.1, stop=0.4, look=0.05
)
CALM = ClientTimeouts(look=0.05)
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    made = Api(database_url, write_templates(tmp_path / "templates"), timeouts=QUICK)
    yield made
    made.close()


def connect(port: int) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port), timeout=patient(10))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def read_all(peer: socket.socket) -> bytes:
    """Everything until the server closes."""
    found = b""
    try:
        while more := peer.recv(65536):
            found += more
    except ConnectionResetError:
        pass
    return found


def read_answer(peer: socket.socket) -> bytes:
    """The first answer, with its body; less if the server closes before."""
    found = b""
    while True:
        head, has_body, body = found.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: ([0-9]+)", head)
        if has_body and len(body) >= (int(length[1]) if length else 0):
            return found
        more = peer.recv(65536)
        if not more:
            return found
        found += more


def answers(port: int, request: bytes = HEALTH) -> bytes:
    """The first line of the answer, on a connection of its own."""
    with connect(port) as peer:
        peer.sendall(request)
        return read_answer(peer).split(b"\r\n")[0]


@contextmanager
def dripping(peer: socket.socket, part: bytes = b"x") -> Iterator[None]:
    """Send a little, again and again, until the server has had enough."""
    is_over = threading.Event()

    def drip() -> None:
        try:
            while not is_over.wait(0.05):
                peer.sendall(part)
        except OSError:
            return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def post(path: str, key: str = "", *, size: int = 1000, more: str = "") -> bytes:
    """The head of a request with a body."""
    shown = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n{shown}Content-Type: application/json\r\n"
        f"Content-Length: {size}\r\n{more}\r\n"
    ).encode()


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_connection_without_a_whole_head_is_closed_however_it_drips(api: Api, begun: bytes) -> None:
    with served(api.app, QUICK) as port, connect(port) as peer, ExitStack() as during:
        peer.sendall(begun)
        if begun:
            during.enter_context(dripping(peer))
        found = read_all(peer)
    assert found.startswith(b"HTTP/1.1 408 ") if begun else found == b""


def test_a_next_request_that_is_not_finished_is_closed(api: Api) -> None:
    with served(api.app, QUICK) as port, connect(port) as peer:
        peer.sendall(HEALTH)
        assert read_answer(peer).startswith(b"HTTP/1.1 200 ")
        with dripping(peer, b"G"):
            assert read_all(peer).startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 "))


def test_a_body_that_drips_is_a_408_and_then_closed(api: Api) -> None:
    key = api.key(Scope.SEND)
    with served(api.app, QUICK) as port, connect(port) as peer:
        peer.sendall(post("/v1/notifications", key))
        with dripping(peer):
            found = read_all(peer)
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in found


def test_a_steady_body_may_take_longer_than_a_silent_one(database_url: str, tmp_path: Path) -> None:
    timeouts = ClientTimeouts(body=0.3, body_bytes=20, look=0.05)
    made = Api(database_url, write_templates(tmp_path / "templates"), timeouts=timeouts)
    body = b'{"channel": "email", "to": "ann@example.com", "template": "hello", "idempotency_key": "1"}'
    with served(made.app, timeouts) as port, connect(port) as peer:
        peer.sendall(post("/v1/notifications", made.key(Scope.SEND), size=len(body)))
        for begin in range(0, len(body), 10):
            time.sleep(0.06)
            peer.sendall(body[begin : begin + 10])
        assert read_answer(peer).split()[1] in (b"202", b"422")
    made.close()


@pytest.mark.parametrize("path", ["/v1/notifications", "/v1/attachments", "/v1/notifications/retry"])
@pytest.mark.parametrize(("shown", "status"), [("", b"401"), ("wrong", b"401"), ("reader", b"403")])
def test_who_may_not_is_told_before_the_body_comes(api: Api, path: str, shown: str, status: bytes) -> None:
    key = api.key(Scope.READ) if shown == "reader" else shown
    with served(api.app, CALM) as port, connect(port) as peer:
        peer.sendall(post(path, key, more="Expect: 100-continue\r\nContent-Disposition: x\r\n"))
        assert read_answer(peer).split()[1] == status


def test_too_fast_and_too_large_are_told_before_the_body_comes(api: Api) -> None:
    key = api.key(Scope.SEND, rate_per_second=0.001)
    with served(api.app, CALM) as port:
        assert answers(port, post("/v1/notifications", key, size=2**30)).split()[1] == b"413"
        assert answers(port, post("/v1/notifications", key, size=0)).split()[1] == b"400"
        assert answers(port, post("/v1/notifications", key)).split()[1] == b"429"


def test_the_rest_of_a_refused_body_is_not_read_for_ever(api: Api) -> None:
    with served(api.app, QUICK) as port, connect(port) as peer:
        peer.sendall(post("/v1/notifications", "wrong", size=1_000_000))
        with dripping(peer):
            assert read_all(peer).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_client_that_does_not_read_its_export_is_cut_off(api: Api, kind: str) -> None:
    key = api.key(Scope.SEND, Scope.READ)
    for lot in range(2):
        batch = [{"to": "ann@example.com", "idempotency_key": f"{lot}-{number}"} for number in range(700)]
        defaults = {"channel": "email", "template": "hello", "context": {"name": "Ann"}}
        answer = api("POST", "/v1/notifications/batch", key=key, json_body={"defaults": defaults, "batch": batch})
        assert answer.json["accepted"] == 700, answer.json
    request = f"GET /v1/notifications?format={kind} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
    reads = api.parts.long_reads
    with served(api.app, QUICK) as port, socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", port))
        peer.sendall(request.encode())
        wait_until(lambda: len(reads) == 1)
        wait_until(lambda: len(reads) == 0)
        # What another asks meanwhile is answered.
        assert answers(port).startswith(b"HTTP/1.1 200 ")


def test_a_thousand_idle_connections_keep_nobody_out(api: Api) -> None:
    begun = b"POST /v1/notifications HTTP/1.1\r\nHost: x\r\n"
    with (
        served(api.app, CALM, most=300, most_of_peer=200) as port,
        idle_connections(port, 900),
        idle_connections(port, 100, begun),
    ):
        for _ in range(20):
            assert answers(port).startswith(b"HTTP/1.1 200 ")


def test_bodies_that_do_not_come_keep_nobody_out(database_url: str, tmp_path: Path) -> None:
    made = Api(database_url, write_templates(tmp_path / "templates"), timeouts=CALM)
    key = made.key(Scope.SEND)
    timeouts = ClientTimeouts(place=0.1, look=0.05)
    with served(made.app, timeouts, most=30, most_of_peer=30) as port, ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(connect(port)).sendall(post("/v1/notifications", key))
        webhook = b"POST /webhooks/twilio/inbound HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        wait_until(lambda: answers(port, webhook).startswith(b"HTTP/1.1 403 "))
        assert answers(port).startswith(b"HTTP/1.1 200 ")
    made.close()


def test_a_connection_without_a_place_is_told_so(api: Api) -> None:
    with served(api.app, CALM, most=2) as port, ExitStack() as stack:
        key = api.key(Scope.SEND)
        for _ in range(2):
            stack.enter_context(connect(port)).sendall(post("/v1/notifications", key))
        found = b""

        def is_refused() -> bool:
            nonlocal found
            found = answers(port)
            return found.startswith(b"HTTP/1.1 503 ")

        wait_until(is_refused)


def test_requests_one_behind_the_other_are_answered_in_order(api: Api) -> None:
    with served(api.app, CALM) as port, connect(port) as peer:
        peer.sendall(HEALTH * 20)
        found = b""
        while found.count(b"HTTP/1.1 200 ") < 20 and (more := peer.recv(65536)):
            found += more
        assert found.count(b"HTTP/1.1 200 ") == 20


@pytest.mark.parametrize(
    ("sent", "status"), [(b"\x16\x03\x01\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, b"431")]
)
def test_what_is_no_request_is_a_problem(api: Api, sent: bytes, status: bytes) -> None:
    with served(api.app, CALM) as port:
        assert answers(port, sent).split()[1] == status


def chunked(path: str, key: str, *chunks: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + pieces


def test_a_body_in_tiny_chunks_is_refused_before_it_holds_up_all_others(api: Api) -> None:
    key, path = api.key(Scope.SEND), "/v1/notifications/batch"
    with served(api.app, CALM) as port:
        # No more than is read before the answer: what is left unread would reset the connection.
        most = next(number for number in count() if number > MAX_CHUNKS + number // CHUNK_BYTES)
        garbage = chunked(path, key, b"{") + b"zz\r\n" + b" " * 20_000
        refused = {
            chunked(path, key, *[b" "] * most): b"too many small chunks",
            garbage: b"not an HTTP/1.1 request",
        }
        for sent, problem in refused.items():
            with connect(port) as peer:
                peer.sendall(sent)
                answer = read_answer(peer)
                assert answer.startswith(b"HTTP/1.1 400 ")
                assert problem in answer
        # Small ones of a small body, and larger ones of a large body.
        for chunks in ([b" "] * 490, [b" " * 64] * 15_000):
            with connect(port) as peer:
                peer.sendall(chunked(path, key, *chunks, b"[]", b""))
                assert b"not_an_object" in read_answer(peer)


def test_nothing_is_said_after_the_answer_to_a_body_that_is_broken(api: Api) -> None:
    with served(api.app, CALM) as port, connect(port) as peer:
        peer.sendall(chunked("/v1/notifications", "wrong"))
        assert read_answer(peer).startswith(b"HTTP/1.1 401 ")
        peer.sendall(b"zz\r\n")
        assert read_all(peer) == b""


def test_the_end_comes_soon_with_every_kind_of_client_there(api: Api) -> None:
    key = api.key(Scope.SEND)
    with ExitStack() as stack:
        with served(api.app, ClientTimeouts(stop=0.4, look=0.05)) as port:
            heads = (b"", HEALTH, b"GET /heal", post("/v1/notifications", key), post("/v1/notifications", "wrong"))
            for head in heads:
                stack.enter_context(connect(port)).sendall(head)
            begun = time.monotonic()
        assert time.monotonic() - begun < patient(5)


@pytest.mark.parametrize(
    "path", ["/v1/notifications", "/v1/notifications/batch", "/v1/templates/email/hello/preview"]
)
@pytest.mark.parametrize(
    "body", [b"[" * 1_000_000, b'{"a":' * 150_000, b"9" * 1_000_000, b'"' + b"\\u0000" * 150_000]
)
def test_a_body_that_is_hard_to_read_is_refused_soon(api: Api, path: str, body: bytes) -> None:
    begun = time.monotonic()
    reply = api("POST", path, key=api.key(Scope.SEND), body=body, headers={"content-type": "application/json"})
    assert reply.status in (400, 422)
    assert time.monotonic() - begun < patient(10)
