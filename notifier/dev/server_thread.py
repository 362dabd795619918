"""Runs a local server in a thread of its own, for code without an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol, TypeVar

_SECONDS = 10.0


class LocalServer(Protocol):
    async def start(self, host: str = ..., port: int = ...) -> None: ...

    async def stop(self) -> None: ...


ServerT = TypeVar("ServerT", bound=LocalServer)


@contextlib.contextmanager
def running(server: ServerT, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[ServerT]:
    """Run a server in a thread while the block lasts.

    Raises:
        OSError: the port is taken.
        TimeoutError: starting or stopping takes too long.
    """
    loop = asyncio.new_event_loop()

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()

    def call(coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, loop).result(_SECONDS)

    thread = threading.Thread(target=run, name=f"local-{type(server).__name__}", daemon=True)
    thread.start()
    try:
        call(server.start(host, port))
        try:
            yield server
        finally:
            call(server.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_SECONDS)
