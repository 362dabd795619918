"""What the local HTTP servers share: listening, stopping, and misbehaving on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from abc import ABC, abstractmethod
from typing import Any, Literal

from aiohttp import web

#: What to do instead of answering, after a message was accepted. `silent`: never answer. `close`: close the
#: connection. `drip`: send the second half of the answer too slowly for any time limit. `truncate`: send half of
#: it and close. `garbage`: the status of success and a page of HTML.
Action = Literal["silent", "close", "drip", "truncate", "garbage"]

_DRIP_SECONDS = 0.2


class LocalHttpServer(ABC):
    """A local server. It listens from `start` to `stop`, and belongs to one event loop."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """The URL to give to a provider as `api_base`."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen. Port 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        self._stopping = asyncio.Event()
        # No access log, because it would contain numbers.
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, backlog=1024).start()
        except OSError:
            await self.stop()
            raise
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self._stopping.set()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @abstractmethod
    def _application(self) -> web.Application: ...

    async def _wait(self, seconds: float) -> None:
        """Sleep, but not longer than the server runs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _answer(
        self, request: web.Request, content: dict[str, Any], *, status: int, action: Action | None
    ) -> web.StreamResponse:
        """Answer about an accepted message. Faults from here on only lose the answer."""
        match action:
            case None:
                return web.json_response(content, status=status)
            case "garbage":
                return web.Response(text="<html>It works!</html>", content_type="text/html", status=status)
            case "silent":
                await self._stopping.wait()
            case "drip" | "truncate":
                await self._begin(request, json.dumps(content).encode(), status=status, goes_on=action == "drip")
            case "close":
                pass
        return _cut(request)

    async def _begin(self, request: web.Request, body: bytes, *, status: int, goes_on: bool) -> None:
        response = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
        response.content_length = len(body)
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            await response.write(body[: len(body) // 2])
            for byte in body[len(body) // 2 : -1] if goes_on else b"":
                await self._wait(_DRIP_SECONDS)
                await response.write(bytes([byte]))


def _cut(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
