"""One client's connection: uvicorn's, with a time limit for every wait for the client.

uvicorn waits without a limit for the headers of a request, for the rest of a body that it has already answered,
and for a client to read its answer. Bodies that a route waits for have their limit in `Shield`.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from notifier.api.errors import MEDIA_TYPE, problem
from notifier.api.timeouts import ClientTimeouts
from notifier.runtime.connection_limit import ConnectionLimit, peer_of

#: Maximum size of a request's headers; h11 refuses more. Bytes.
_MAX_HEAD_BYTES = 16 * 1024
#: A body may come in so many chunks, and in one more …
MAX_CHUNKS = 500
#: … for each this many bytes. h11 takes 10 µs for a chunk, and all others wait for it.
CHUNK_BYTES = 64


class _Wait(Enum):
    HEAD = auto()  #: for all headers of a request
    NEXT = auto()  #: for the next request to begin
    BODY = auto()  #: for more of a body
    OURS = auto()  #: for our own work
    ANSWER = auto()  #: for the client to read the answer
    REST = auto()  #: for the end of a body that is thrown away
    CLOSED = auto()  #: for the client to read what is written, before the connection is closed


#: When places run out, the connection with the highest rank is closed first; with equal ranks, the one that has
#: waited longest.
_RANK = {_Wait.ANSWER: 0, _Wait.BODY: 1, _Wait.HEAD: 2, _Wait.NEXT: 2, _Wait.REST: 3, _Wait.CLOSED: 4}
#: Longer than any wait. Seconds.
_NEVER = 1_000_000.0


def _plain(status: int, detail: str, *headers: str) -> bytes:
    """A complete answer, for cases in which FastAPI has no request to answer."""
    body = bytes(problem(status, detail).body).decode()
    head = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join([*head, "", body]).encode()


_NO_PLACE = _plain(503, "too many connections, try again", "Retry-After: 1")
_TOO_SLOW = _plain(408, "the headers of the request did not arrive in time")
_SMALL_CHUNKS = _plain(400, "the body is cut into too many small chunks: send larger ones, or give its length")
_NO_HTTP = {
    400: _plain(400, "this is not an HTTP/1.1 request"),
    431: _plain(431, "the headers of the request are too large"),
}


class _BoundedChunks(h11.Connection):
    """h11's parser, which gives up on a body in too many small chunks."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, _MAX_HEAD_BYTES)
        self.has_small_chunks = False
        self._chunks = self._bytes = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if type(event) is h11.Request:
            self._chunks = self._bytes = 0
        elif type(event) is h11.Data:
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._chunks > MAX_CHUNKS + self._bytes // CHUNK_BYTES:
                self.has_small_chunks = True
                raise h11.RemoteProtocolError("too many small chunks")
        return event


class ClientConnection(H11Protocol):
    """The protocol of one connection. `limit` and `timeouts` are shared by the process."""

    def __init__(
        self, *args: Any, limit: ConnectionLimit[ClientConnection], timeouts: ClientTimeouts, **named: Any
    ) -> None:
        super().__init__(*args, **named)
        self.conn: _BoundedChunks = _BoundedChunks()
        self.timeout_keep_alive = timeouts.keep_alive  # type: ignore[assignment]
        self.peer = ""
        self._limit = limit
        self._timeouts = timeouts
        self._wait = _Wait.HEAD
        self._since = 0.0
        #: The first byte of the headers has arrived.
        self._has_begun = False
        #: There was no free place for the connection.
        self._is_refused = False
        self._is_stopping = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.peer = peer_of(transport.get_extra_info("peername"))
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self._timeouts.look, self._look)
        if not self._limit.enter(self):
            self._is_refused = True
            self.transport.write(_NO_PLACE)
            if self._limit.may_linger(self):
                # If it were closed at once, with its request unread, the client would not see the answer.
                transport.write_eof()
            else:
                self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self._has_begun = True
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit.leave(self)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._since = self.loop.time()

    def on_response_complete(self) -> None:
        self._has_begun = False
        self._since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        cycle = self.cycle
        if cycle is not None and cycle.more_body:
            # In the middle of a body. If its answer has begun, there is no other.
            if not cycle.response_started:
                self.transport.write(_SMALL_CHUNKS if self.conn.has_small_chunks else _NO_HTTP[400])
        elif cycle is None or cycle.response_complete:
            # uvicorn does not tell the reason. h11 holds more than this only if the headers are too large.
            size = len(self.conn.trailing_data[0])
            self.transport.write(_NO_HTTP[431 if size > _MAX_HEAD_BYTES else 400])
        self.transport.close()

    def shutdown(self) -> None:
        """The process ends. Requests in progress still get their answer, if the client does not keep us
        waiting."""
        self._is_stopping = True
        self._since = self.loop.time()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def eviction_rank(self) -> float | None:
        self._note()
        waited = self.loop.time() - self._since
        if self._wait is _Wait.OURS or (
            self._wait in (_Wait.BODY, _Wait.ANSWER) and waited < self._timeouts.place
        ):
            return None
        return _RANK[self._wait] * _NEVER + waited

    def evict(self) -> None:
        if self._wait is _Wait.HEAD and not self.transport.is_closing():
            self.transport.write(_NO_PLACE)
        self._end()

    def _now_waits_for(self) -> _Wait:
        cycle = self.cycle
        if self._is_refused:
            return _Wait.REST
        if self.transport.is_closing():
            return _Wait.CLOSED
        if self.flow.write_paused:
            return _Wait.ANSWER
        if cycle is not None and not cycle.response_complete:
            return _Wait.BODY if cycle.more_body and not self.flow.read_paused else _Wait.OURS
        if self.conn.their_state is h11.SEND_BODY:
            return _Wait.REST
        return _Wait.HEAD if cycle is None or self._has_begun else _Wait.NEXT

    def _note(self) -> None:
        wait = self._now_waits_for()
        if wait is not self._wait:
            self._wait, self._since = wait, self.loop.time()

    def _look(self) -> None:
        """Runs periodically: closes the connection if we have waited too long for the client."""
        self._note()
        most = {
            _Wait.HEAD: self._timeouts.head,
            _Wait.REST: self._timeouts.rest,
            _Wait.ANSWER: self._timeouts.answer,
            _Wait.CLOSED: self._timeouts.answer,
        }.get(self._wait)
        if self._is_stopping and self._wait is not _Wait.OURS:
            most = min(most or self._timeouts.stop, self._timeouts.stop)
        if most is not None and self.loop.time() - self._since >= most:
            if self._wait is _Wait.HEAD and self._has_begun:
                self.transport.write(_TOO_SLOW)
            self._end()
        self._timer = self.loop.call_later(self._timeouts.look, self._look)

    def _end(self) -> None:
        """Close the connection. Whatever the client has not read by now is lost."""
        if self._wait in (_Wait.ANSWER, _Wait.CLOSED) or self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()
