"""A TCP proxy that can misbehave: hold, freeze, slow down, refuse or cut what goes through it.

It stands between the programs and each of their servers. Bytes pass unread, unless a tap looks for the sign of a
marked point. It cannot lose packets: this machine's kernel still acknowledges what a frozen link swallows. So a
frozen link is a peer that hangs, which is noticed later than one that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

_CHUNK = 65_536
_DRIP_SECONDS = 0.25


@dataclass(eq=False, slots=True)
class Link:
    """One connection through the proxy."""

    #: Port of the program's end, which tells whose connection it is.
    client_port: int
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    #: Swallows everything from both sides, and stays open.
    frozen: bool = False

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


@dataclass(frozen=True, slots=True)
class Strike:
    """What a tap wants done at a marked point."""

    act: Callable[[], None]
    #: Whether the bytes that are the sign still reach the other side, before `act`.
    pass_on: bool = True


#: Looks at passing bytes: (link, whether they come from the program, bytes) → what to do about them.
Tap = Callable[[Link, bool, bytes], Strike | None]


class Proxy:
    """The proxy. It listens from `start` to `stop` on one event loop; everything else may be called from any
    thread."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: asyncio.Event | None = None
        self.port = 0
        #: Sees everything that passes; None: nobody looks.
        self.tap: Tap | None = None
        #: New connections are closed at once.
        self.refuses = False
        #: Connections so far; and connections and reads that wait now because of `hold`.
        self.connections = self.held = 0
        #: Maximum in each direction of each link; None: no limit.
        self.bytes_per_second: float | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._serve, host, port, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._abort(set(self._links))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Faults.

    def hold(self) -> None:
        """Let nothing pass, on existing and new links, until `heal`; then everything passes."""
        assert self._open is not None
        self._call(self._open.clear)

    def freeze(self) -> None:
        """Make every present link a black hole for the rest of its life. New links work."""
        self._call(self._freeze)

    def refuse(self) -> None:
        """Close every present link and every new one until `heal`, as if the server were gone."""
        assert self._open is not None
        self.refuses = True
        self._call(self._open.set)
        self._call(lambda: self._abort(set(self._links)))

    def cut(self) -> None:
        self._call(lambda: self._abort(set(self._links)))

    def heal(self) -> None:
        """End all faults: frozen links are closed, held bytes pass."""
        self.tap, self.refuses, self.bytes_per_second = None, False, None
        assert self._open is not None
        self._call(self._open.set)
        self._call(lambda: self._abort({link for link in self._links if link.frozen}))

    def lose_answer(self, link: Link) -> None:
        """Call this inside a tap: what was just passed on is executed, but its answer never arrives."""
        link.frozen = True
        asyncio.get_running_loop().call_later(0.2, link.abort)

    def _call(self, function: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function)

    def _freeze(self) -> None:
        for link in self._links:
            link.frozen = True

    def _abort(self, links: set[Link]) -> None:
        for link in links:
            link.abort()

    # Work.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            # Only `stop` cancels, and asyncio's streams would complain about it.
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._wait_while_held()
        if self.refuses:
            return
        try:
            up_reader, up_writer = await self._connect()
        except OSError:
            return
        link = Link(writer.get_extra_info("peername")[1], writer, up_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pump(link, reader, up_writer, from_client=True),
                self._pump(link, up_reader, writer, from_client=False),
            )
        finally:
            self._links.discard(link)
            link.abort()

    async def _wait_while_held(self) -> None:
        assert self._open is not None
        if not self._open.is_set():
            self.held += 1
            try:
                await self._open.wait()
            finally:
                self.held -= 1

    async def _pump(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._pass(link, writer, data, from_client)
        if not link.frozen:
            with contextlib.suppress(OSError):
                writer.close()

    async def _pass(self, link: Link, writer: asyncio.StreamWriter, data: bytes, from_client: bool) -> None:
        await self._wait_while_held()
        if link.frozen:
            return
        strike = self.tap(link, from_client, data) if self.tap else None
        if strike is None or strike.pass_on:
            await self._write(writer, data)
        if strike is not None:
            strike.act()

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        while self.bytes_per_second is not None and data:
            step = max(1, int(self.bytes_per_second * _DRIP_SECONDS))
            writer.write(data[:step])
            data = data[step:]
            await writer.drain()
            await asyncio.sleep(_DRIP_SECONDS)
        if data:
            writer.write(data)
            await writer.drain()


def to_port(port: Callable[[], int]) -> Connect:
    """Connect to a port of 127.0.0.1, asked for each time, because a server may come back on another port."""

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port())

    return connect


def to_socket(path: Callable[[], str]) -> Connect:
    """Connects to a Unix socket."""

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(path())

    return connect
