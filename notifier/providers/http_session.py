"""HTTP/1.1 connections of a provider, reused between requests.

A general HTTP client spends most of an SMS's time on things that such an API never needs: cookies, redirects,
proxies, compression, signals, multipart forms. Here a request is one write, and httptools parses the answer.

A connection has one request at a time. It is reused only if the answer was complete, nothing followed it, and the
server keeps the connection open. So no answer can be mistaken for the answer to another request.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast
from urllib.parse import urlencode

import aiohappyeyeballs
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict
from yarl import URL

from notifier.providers.system_resolver import SystemResolver

#: Time limit for DNS, TCP and TLS together.
CONNECT_SECONDS = 3.0
#: If an address does not answer within this, the next one is tried as well. Seconds.
_NEXT_ADDRESS_SECONDS = 0.25
#: Idle connections are dropped before a server or a load balancer drops them (they wait a minute or more). A POST
#: on a connection that the other side has just closed would end in an unknown outcome.
_KEEPALIVE_SECONDS = 10.0
#: Maximum size of an answer, headers included. Bytes.
MAX_ANSWER_BYTES = 16 * 1024 * 1024

_BREAKS = re.compile(r"[\r\n\0]")


@dataclass(slots=True)
class HttpCall:
    """One request in progress: its deadline, and what is known about it if it ends in an exception."""

    deadline_seconds: float
    #: Set just before the first byte of the request is sent; until then the provider has nothing.
    was_written: bool = False
    #: HTTP status. None until the headers of the answer have arrived.
    status: int | None = None
    headers: Mapping[str, str] | None = None
    #: None until the whole answer has arrived.
    body: str | None = None


class HttpConnection(asyncio.Protocol):
    """One connection, with one request at a time."""

    #: When it became idle, on the loop's clock.
    idle_since = 0.0

    def __init__(self, loop: asyncio.AbstractEventLoop, all_open: set[HttpConnection]) -> None:
        self._loop = loop
        self._all_open = all_open
        self._transport: asyncio.Transport
        self._parser: HttpResponseParser | None = None
        self._call: HttpCall
        self._answered: asyncio.Future[None] | None = None
        self._headers: CIMultiDict[str] = CIMultiDict()
        self._body: list[bytes] = []
        self._bytes_left = 0
        #: The answer ends when the server closes the connection.
        self._ends_with_connection = False
        self._is_kept = True

    @property
    def is_usable(self) -> bool:
        """Whether it can take another request."""
        return self._is_kept and not self._transport.is_closing()

    async def ask(self, request: bytes, call: HttpCall) -> None:
        """Send a request and read its answer into `call`. After an exception the connection cannot be used any
        more."""
        self._parser, self._call, self._bytes_left = HttpResponseParser(self), call, MAX_ANSWER_BYTES
        self._answered = self._loop.create_future()
        call.was_written = True
        self._transport.write(request)
        try:
            await self._answered
        finally:
            self._answered = self._parser = None

    def abort(self) -> None:
        self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._all_open.add(self)

    def data_received(self, data: bytes) -> None:
        self._bytes_left -= len(data)
        if self._parser is None:
            self._is_kept = False  # bytes that belong to no request
        elif self._bytes_left < 0:
            self._fail(ConnectionError(f"an answer of more than {MAX_ANSWER_BYTES} bytes"))
        else:
            try:
                self._parser.feed_data(data)
            except (HttpParserError, HttpParserUpgrade) as error:
                self._fail(ConnectionError(f"an answer that is not HTTP: {type(error).__name__}"))
        if not self._is_kept:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._all_open.discard(self)
        self._is_kept = False
        if exc is None and self._ends_with_connection:
            self._complete()
        self._fail(exc or ConnectionResetError("the server closed the connection"))

    # Called by the parser.

    def on_message_begin(self) -> None:
        if self._answered is None or self._answered.done():
            self._is_kept = False  # a second answer to one request
        self._headers, self._body, self._ends_with_connection = CIMultiDict(), [], False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.add(name.decode("latin-1"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status >= 200 and self._is_kept:
            self._call.status, self._call.headers = status, self._headers
            has_length = "Content-Length" in self._headers or "Transfer-Encoding" in self._headers
            self._ends_with_connection = not has_length and status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        # After a 1xx, the answer is still to come.
        if self._parser.get_status_code() >= 200 and self._is_kept:
            self._is_kept = self._parser.should_keep_alive()
            self._complete()

    def _complete(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._call.body = b"".join(self._body).decode(errors="replace")
            self._answered.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._is_kept = False
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)


class HttpSession:
    """A provider's connections. Create it in the event loop that uses it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._names = SystemResolver(socket.AI_ADDRCONFIG)
        self._open: set[HttpConnection] = set()
        #: Idle connections by server address; the most recently used is last.
        self._idle: defaultdict[tuple[str, str | None, int | None], deque[HttpConnection]] = defaultdict(deque)
        self._dropping: asyncio.TimerHandle | None = None

    async def exchange(
        self,
        call: HttpCall,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send one request and read its answer into `call`. Never sends a second request for the same call. `data`
        is sent as a form; redirects are not followed. Only connecting has a time limit here; `in_time` enforces
        the call's deadline.

        Raises:
            TimeoutError, OSError: `HttpCall.was_written` says whether the request may have been accepted.
        """
        call.was_written, call.status, call.headers, call.body = False, None, None, None
        target = URL(url).update_query(params) if params else URL(url)
        request = _written(method, target, data, headers or {})
        idle = self._idle[target.scheme, target.host, target.port]
        connection = self._usable(idle) or await self._connect(target, call.deadline_seconds)
        try:
            await connection.ask(request, call)
        except BaseException:
            # The answer may still come.
            connection.abort()
            raise
        if connection.is_usable:
            connection.idle_since = self._loop.time()
            idle.append(connection)
            if self._dropping is None:
                self._dropping = self._loop.call_later(_KEEPALIVE_SECONDS, self._drop_idle)

    async def close(self) -> None:
        """Close every connection. Calls in progress fail."""
        if self._dropping is not None:
            self._dropping.cancel()
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(0)  # lets the event loop close them

    def _usable(self, idle: deque[HttpConnection]) -> HttpConnection | None:
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return None

    async def _connect(self, target: URL, deadline_seconds: float) -> HttpConnection:
        host = target.host or ""
        async with asyncio.timeout(min(CONNECT_SECONDS, deadline_seconds)):
            found = await self._names.look_up(host, target.port or 0)
            sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS)
            is_tls = target.scheme == "https"
            _, connection = await self._loop.create_connection(
                lambda: HttpConnection(self._loop, self._open),
                sock=sock,
                ssl=self._tls if is_tls else None,
                server_hostname=host if is_tls else None,
            )
        return connection

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Created when first needed, because loading the system's certificates takes milliseconds."""
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _drop_idle(self) -> None:
        until = self._loop.time() - _KEEPALIVE_SECONDS
        for idle in self._idle.values():
            while idle and idle[0].idle_since <= until:
                idle.popleft().abort()
        waits = [idle[0].idle_since - until for idle in self._idle.values() if idle]
        self._dropping = self._loop.call_later(min(waits), self._drop_idle) if waits else None


def _written(method: str, target: URL, data: Mapping[str, object] | None, headers: Mapping[str, str]) -> bytes:
    """The request as bytes."""
    body = urlencode(data).encode() if data else b""
    host = target.host_port_subcomponent or ""
    lines = {"Host": host, "Accept": "*/*", "Accept-Encoding": "identity", **headers}
    if data:
        lines["Content-Type"] = "application/x-www-form-urlencoded"
    if method != "GET":
        lines["Content-Length"] = str(len(body))
    if _BREAKS.search("".join(lines.values())):
        raise ValueError("a line break in a header")
    head = "".join([f"{name}: {value}\r\n" for name, value in lines.items()])
    return f"{method} {target.raw_path_qs} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body
