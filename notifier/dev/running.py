"""Running a local server on a thread of its own, for code that has no event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

_START_SECONDS = 10.0


class LocalServer(Protocol):
    """What can be run."""

    async def start(self, host: str = ..., port: int = ...) -> None:
        """Listen; port 0 takes a free one."""
        ...

    async def stop(self) -> None:
        """Close every socket and end every task."""
        ...


ServerT = TypeVar("ServerT", bound=LocalServer)


class LoopThread:
    """An event loop on a thread. `call` runs a coroutine on it and waits for the result."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    def call(self, coroutine: Coroutine[Any, Any, None], *, timeout_seconds: float = _START_SECONDS) -> None:
        """Run it to the end.

        Raises:
            TimeoutError: if it takes longer than `timeout_seconds`.
        """
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_seconds)

    def close(self) -> None:
        """End the loop and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_SECONDS)


@contextlib.contextmanager
def running(make: Callable[[], ServerT], *, host: str = "127.0.0.1", port: int = 0) -> Iterator[ServerT]:
    """Make a server and run it on a thread while the block lasts.

    Raises:
        OSError: if the port is taken.
    """
    server = make()
    thread = LoopThread(f"local-{type(server).__name__}")
    try:
        thread.call(server.start(host, port))
        try:
            yield server
        finally:
            thread.call(server.stop())
    finally:
        thread.close()
