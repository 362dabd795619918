"""Looks up host names with the system's resolver, so that slow names do not delay others.

asyncio looks names up in the few threads of the loop's executor, uvloop in two threads of the whole process. Two
slow names there delay all others for as long as they take, 40 seconds or more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_NUMBERS = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
_Found = list[tuple[Any, ...]]


class SystemResolver(AbstractResolver):
    """Looks each name up in a separate thread, at most one for each name; concurrent requests share it.

    It is meant for hosts from the configuration, of which there are few. A look-up cannot be cancelled, only
    abandoned: its thread delays neither the loop nor the end of the program.
    """

    def __init__(self, flags: int = 0) -> None:
        """`flags` are those of getaddrinfo."""
        self._flags = flags
        self._under_way: dict[tuple[str, int, int], asyncio.Future[_Found]] = {}

    async def look_up(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> _Found:
        """Look up a host, like `socket.getaddrinfo` for a stream. Has no time limit of its own.

        Raises:
            OSError: the name cannot be looked up.
        """
        asked = (host, port, family)
        found = self._under_way.get(asked)
        if found is None or found.get_loop() is not asyncio.get_running_loop():
            found = self._under_way[asked] = self._begin(*asked)
        return await asyncio.shield(found)

    def _begin(self, host: str, port: int, family: int) -> asyncio.Future[_Found]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Found] = loop.create_future()

        def end(found: _Found, problem: Exception | None) -> None:
            if self._under_way.get((host, port, family)) is future:
                del self._under_way[host, port, family]
            if problem is None:
                future.set_result(found)
            else:
                future.set_exception(problem)
                future.exception()  # all callers may have left

        def look() -> None:
            found: _Found = []
            problem: Exception | None = None
            try:
                found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=self._flags)
            except Exception as error:  # such as UnicodeError, if it is not a valid name
                problem = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(end, found, problem)

        threading.Thread(target=look, name="look-up", daemon=True).start()
        return future

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results = []
        for kind, _, protocol, _, address in await self.look_up(host, port, family):
            text = socket.getnameinfo(address, _NUMBERS)[0] if ":" in str(address[0]) else address[0]
            results.append(
                ResolveResult(
                    hostname=host, host=text, port=port, family=kind, proto=protocol, flags=socket.AI_NUMERICHOST
                )
            )
        return results

    async def close(self) -> None:
        """Does nothing: nothing is kept open."""
