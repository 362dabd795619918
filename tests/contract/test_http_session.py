"""The HTTP of providers, on real sockets, against a server that sends what each case says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from notifier.providers import http_session
from notifier.providers.http_session import HttpCall, HttpSession
from tests.support.tls import certificate, server_context
from tests.waiting import patient

DEADLINE_SECONDS = 30.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class Scripted:
    """Answers the requests of each connection with what is in `answers`, one after the other."""

    def __init__(self, answers: Sequence[bytes], *, then_closes: bool = False, tls: ssl.SSLContext | None = None):
        self._answers = list(answers)
        self._then_closes = then_closes
        self._tls = tls
        self.requests: list[bytes] = []
        #: Connections taken, and those that the client has ended.
        self.connections, self.ended = 0, 0

    async def __aenter__(self) -> Scripted:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        scheme = "https" if self._tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/a%20b"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            for answer in self._answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                self.requests.append(head + await reader.readexactly(int(length or 0)))
                writer.write(answer)
            if not self._then_closes:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.ended += 1
        writer.close()


def run(server: Scripted, work: Callable[[HttpSession], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(patient(DEADLINE_SECONDS)), server:
            session = HttpSession()
            try:
                await work(session)
            finally:
                await session.close()

    asyncio.run(main())


def ask(server: Scripted, times: int = 1) -> list[HttpCall]:
    calls = [HttpCall(DEADLINE_SECONDS) for _ in range(times)]

    async def work(session: HttpSession) -> None:
        for call in calls:
            await session.exchange(call, "POST", server.url, data={"text": "é & co", "n": 1})

    run(server, work)
    return calls


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK, 200, "ok"),
        (
            b"HTTP/1.1 201 Created\r\n" + CHUNKED + b"1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n",
            201,
            "ok",
        ),
        (b"HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\n" + OK, 200, "ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", 302, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe", 200, "��"),
    ],
)
def test_an_answer_is_read_and_its_connection_kept(answer: bytes, status: int, body: str) -> None:
    server = Scripted([answer, OK])
    first, second = ask(server, times=2)
    assert (first.status, first.body, second.body) == (status, body, "ok")
    assert "X-Early" not in (first.headers or {})
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        # A second answer, and something that is none: it must not become the next request's.
        OK + b"HTTP/1.1 200 OK\r\nX-Second: 1\r\nContent-Length: 3\r\n\r\nbad",
        OK + b"?",
    ],
)
def test_a_connection_is_not_used_again_if_it_is_to_be_closed_or_goes_on(answer: bytes) -> None:
    server = Scripted([answer])
    calls = ask(server, times=2)
    assert [call.body for call in calls] == ["ok", "ok"]
    assert not any("X-Second" in (call.headers or {}) for call in calls)
    assert server.connections == 2


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    (call,) = ask(Scripted([b"HTTP/1.1 200 OK\r\n\r\nall of it"], then_closes=True))
    assert call.body == "all of it"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", None),
        (b"HTTP/1.1 200 O", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", 200),
        (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"4\r\nhalf\r\n", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", None),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", None),
        (b"220 mail.example.com ESMTP\r\n", None),
    ],
)
def test_what_is_no_whole_answer_is_an_error_and_the_request_was_written(
    answer: bytes, status: int | None
) -> None:
    call = HttpCall(DEADLINE_SECONDS)
    server = Scripted([answer], then_closes=True)

    async def work(session: HttpSession) -> None:
        with pytest.raises(ConnectionError):
            await session.exchange(call, "POST", server.url)

    run(server, work)
    assert (call.was_written, call.status, call.body) == (True, status, None)
    assert len(server.requests) == 1


def test_an_answer_without_end_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_session, "MAX_ANSWER_BYTES", 1000)
    server = Scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000])

    async def work(session: HttpSession) -> None:
        with pytest.raises(ConnectionError, match="1000 bytes"):
            await session.exchange(HttpCall(DEADLINE_SECONDS), "GET", server.url)

    run(server, work)


def test_a_call_that_is_given_up_takes_its_connection_with_it() -> None:
    server = Scripted([b"", OK])

    async def work(session: HttpSession) -> None:
        task = asyncio.create_task(session.exchange(HttpCall(DEADLINE_SECONDS), "GET", server.url))
        while not server.requests:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        while not server.ended:
            await asyncio.sleep(0.001)

    run(server, work)


def test_connections_that_are_idle_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_session, "_KEEPALIVE_SECONDS", 0.001)
    server = Scripted([OK, OK])

    async def work(session: HttpSession) -> None:
        await session.exchange(HttpCall(DEADLINE_SECONDS), "GET", server.url)
        while not server.ended:
            await asyncio.sleep(0.001)
        await session.exchange(HttpCall(DEADLINE_SECONDS), "GET", server.url)

    run(server, work)
    assert server.connections == 2


def test_a_request_says_what_a_server_needs() -> None:
    server = Scripted([OK, OK])

    async def work(session: HttpSession) -> None:
        form = {"text": "é & co", "n": 1}
        await session.exchange(HttpCall(30), "POST", server.url, data=form, headers={"X-Own": "yes"})
        await session.exchange(HttpCall(30), "GET", server.url + "?a=1", params={"To": "+1 555"})
        with pytest.raises(ValueError, match="line break"):
            await session.exchange(HttpCall(30), "GET", server.url, headers={"X": "a\r\nEvil: 1"})

    run(server, work)
    posted, got = server.requests
    head, _, body = posted.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a%20b HTTP/1.1\r\nHost: 127.0.0.1:")
    assert {b"X-Own: yes", b"Content-Type: application/x-www-form-urlencoded", b"Content-Length: 22"} <= set(
        head.split(b"\r\n")
    )
    assert body == b"text=%C3%A9+%26+co&n=1"
    assert got.startswith(b"GET /a%20b?a=1&To=%2B1+555 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("is_trusted", "name", "problem"),
    [
        (True, "IP:127.0.0.1", None),
        (False, "IP:127.0.0.1", "self-signed certificate"),
        (True, "DNS:other.example.com", "not valid for '127.0.0.1'"),
    ],
)
def test_tls_is_checked_against_the_systems_certificates_and_the_hosts_name(
    is_trusted: bool, name: str, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = certificate(tmp_path, name)
    tls = server_context(both)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(both))
    call, server = HttpCall(DEADLINE_SECONDS), Scripted([OK], tls=tls)

    async def work(session: HttpSession) -> None:
        if problem is None:
            await session.exchange(call, "POST", server.url)
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match=problem):
                await session.exchange(call, "POST", server.url)

    run(server, work)
    assert (call.was_written, call.body) == ((True, "ok") if problem is None else (False, None))
