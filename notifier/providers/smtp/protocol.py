"""Commands and replies on an open connection, in order.

aiosmtplib connects, encrypts and logs in. Then this protocol takes the transport, because it can do two things
that aiosmtplib's cannot: send several commands at once (PIPELINING, RFC 2920), and notice unexpected replies,
which mostly announce that the server is about to close.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

#: RFC 5321 section 4.5.3.1.5 allows 512 octets a line; some servers say more.
_MAX_LINE = 8192
_MAX_LINES = 1000
#: Characters of an invalid reply that an error repeats.
_MAX_WORDS = 500


class Reply(NamedTuple):
    code: int
    #: Its lines without codes, joined by line feeds.
    text: str


class Garbled(Exception):
    """What came is not SMTP. The text is what came."""


class Lost(ConnectionError):
    """The connection is closed."""


class Dialogue(asyncio.Protocol):
    """The protocol of one connection. Used by one task at a time."""

    def __init__(self, transport: asyncio.Transport) -> None:
        #: Replies still to be read.
        self.outstanding = 0
        self._transport = transport
        self._input = bytearray()
        self._lines: list[str] = []
        self._came: deque[Reply | Exception] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_lost = False
        self._is_garbled = False
        transport.set_protocol(self)

    @property
    def is_usable(self) -> bool:
        """Whether the next command may be sent: the connection is open, with no unexpected reply."""
        is_open = not (self._is_lost or self._is_garbled or self._transport.is_closing())
        return is_open and len(self._came) <= self.outstanding

    def write(self, data: bytes, *, replies: int = 1) -> None:
        """Send whole lines that will be answered by `replies` replies.

        Raises:
            Lost: the connection is closed.
        """
        if self._is_lost or self._transport.is_closing():
            raise Lost
        self.outstanding += replies
        self._transport.write(data)

    async def reply(self) -> Reply:
        """The next reply. Has no deadline of its own; after a cancelled read the connection is unusable.

        Raises:
            Lost: the connection was closed before it came.
            Garbled: what came is no reply.
        """
        if not self._came:
            if self._is_lost:
                raise Lost
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        found = self._came.popleft()
        if isinstance(found, Exception):
            raise found
        self.outstanding -= 1
        return found

    async def ask(self, command: bytes) -> Reply:
        """Send one command and read its reply, after the outstanding ones. Raises as `write` and `reply`."""
        self.write(command + b"\r\n")
        while self.outstanding > 1:
            await self.reply()
        return await self.reply()

    def data_received(self, data: bytes) -> None:
        self._input += data
        while not self._is_garbled and (end := self._input.find(b"\n")) >= 0:
            line = bytes(self._input[:end])
            del self._input[: end + 1]
            self._read_line(line)
        if self._is_garbled:
            self._input.clear()
        elif len(self._input) > _MAX_LINE:
            self._refuse("a line longer than any reply")

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._take(Lost())

    def _read_line(self, line: bytes) -> None:
        text = line.rstrip(b"\r").decode("utf-8", "surrogateescape")
        code = text[:3]
        if not (len(code) == 3 and code.isdecimal() and code.isascii()):
            self._refuse(text)
            return
        self._lines.append(text[4:].strip())
        if len(self._lines) > _MAX_LINES:
            self._refuse("more lines than any reply")
        elif text[3:4] != "-":
            lines, self._lines = self._lines, []
            self._take(Reply(int(code), "\n".join(lines)))

    def _refuse(self, what: str) -> None:
        """Nothing that comes after this is read."""
        self._is_garbled = True
        self._take(Garbled(what[:_MAX_WORDS]))

    def _take(self, reply: Reply | Exception) -> None:
        self._came.append(reply)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
