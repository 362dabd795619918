"""Round every request: nothing larger than the limit is read, and no fault of ours gets out as a trace."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from notifier.message import MAX_BODY_BYTES
from notifier.telemetry import log_failure
from notifier.web.problems import Refusal, problem


class Shield:
    """ASGI middleware. `limits`: path → what its body may come to, where that is another limit. Bytes."""

    def __init__(self, app: ASGIApp, limits: Mapping[str, int] = MappingProxyType({})) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], MAX_BODY_BYTES)
        too_large = f"the body is larger than {limit} bytes"
        if _declared_size(scope) > limit:
            await problem(413, too_large)(scope, receive, send)
            return
        size, has_started = 0, False

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise Refusal(413, too_large)
            return message

        async def noted(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except Exception as error:
            log_failure("api.failed", error)
            if has_started:
                # The response cannot be taken back: without its end the client knows that it is not whole.
                raise BrokenOff from None
            await problem(500, "the service failed on this request; it is logged")(scope, receive, send)


class BrokenOff(Exception):
    """A response ended in the middle. Says nothing: the server's log would quote it."""


def _declared_size(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
