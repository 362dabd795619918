"""Middleware around every request: limits the size of the body and the time for it, and keeps tracebacks out of
answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from notifier.api.errors import Refusal, problem
from notifier.api.timeouts import ClientTimeouts
from notifier.config.logs import log, log_failure
from notifier.domain.message import MAX_BODY_BYTES


class Shield:
    """The ASGI middleware. `limits`: path → its own limit for the body, in bytes."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Mapping[str, int] = MappingProxyType({}),
        timeouts: ClientTimeouts = ClientTimeouts(),  # noqa: B008 - it cannot change
    ) -> None:
        self._app = app
        self._limits = limits
        self._timeouts = timeouts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], MAX_BODY_BYTES)
        if (declared_size(Headers(scope=scope)) or 0) > limit:
            await problem(413, _too_large(limit))(scope, receive, send)
            return
        body, has_started = _Body(receive, limit, self._timeouts), False

        async def noted(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, body.receive, noted)
        except ClientDisconnect:
            # The client left before its body was complete: nothing was done, and nobody is there to answer.
            return
        except asyncio.CancelledError:
            # The grace is over; uvicorn would log a traceback for each request still in progress.
            log.warning("api.cut_off")
            if not has_started:
                await problem(503, "the service is stopping, and this was not done in time")(scope, receive, send)
        except Exception as error:
            # The route's template, not the path: the path may hold what people typed.
            route = getattr(scope.get("route"), "path", None)
            log_failure("api.failed", error, method=scope["method"], route=route)
            if has_started:
                # Response headers are already sent. If the response has no proper end, the client knows that it is
                # incomplete.
                raise BrokenOff from None
            await problem(500, "the service failed on this request; it is logged")(scope, receive, send)


class _Body:
    def __init__(self, receive: Receive, limit: int, timeouts: ClientTimeouts) -> None:
        self._receive = receive
        self._limit = limit
        self._timeouts = timeouts
        self._size = 0
        #: Total time for which we only waited for the body. Seconds.
        self._waited = 0.0
        self._is_whole = False

    async def receive(self) -> Message:
        """Return the next part of the body, or the message that the client is gone. Raises `Refusal`: 413 or
        408."""
        if self._is_whole:
            return await self._receive()
        begun = time.monotonic()
        most = self._timeouts.body + self._size / self._timeouts.body_bytes
        try:
            async with asyncio.timeout(most - self._waited):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, "the body did not arrive in time: send it without a pause") from None
        self._waited += time.monotonic() - begun
        self._size += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._size > self._limit:
            raise Refusal(413, _too_large(self._limit))
        return message


class BrokenOff(Exception):
    """A response that ended in the middle. It has no text, because the server's log would quote it."""


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} bytes"


def declared_size(headers: Headers) -> int | None:
    """The value of `Content-Length`; None if there is none. Of more than 18 digits only the first ones: the body
    is too large anyway."""
    text = headers.get("content-length", "")
    return int(text[:18]) if text.isdecimal() else None
