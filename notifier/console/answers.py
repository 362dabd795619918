"""Answers of the console: they carry the headers of its pages, and an error is a page, never JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from notifier.api.errors import MEDIA_TYPE
from notifier.config.logs import log_failure
from notifier.console.errors import PAGE_ERRORS, error_page, failure_page, plain_page
from notifier.console.form_again import form_again
from notifier.console.pages import HEADERS
from notifier.console.parts import ConsoleParts

Handle = Callable[[Request], Coroutine[Any, Any, Response]]

COOKIE = "notifier_console"


class ConsoleRoute(APIRoute):
    """A route of the console that needs no sign-in."""

    def get_route_handler(self) -> Handle:
        handle = self.checked(super().get_route_handler())

        async def answered(request: Request) -> Response:
            answer = await self._answer(handle, request)
            for name, value in HEADERS.items():
                answer.headers.setdefault(name, value)
            return answer

        return answered

    def checked(self, handle: Handle) -> Handle:
        """`handle`, with the checks that come before it. Raises errors of which a page can be made."""
        return handle

    async def _answer(self, handle: Handle, request: Request) -> Response:
        pages = request.app.state.console.pages
        try:
            return await handle(request)
        except PAGE_ERRORS as error:
            return await form_again(request, error) or error_page(pages, request, error)
        except ClientDisconnect:
            raise
        except Exception as error:  # our own fault; the visitor needs a way back
            log_failure("api.failed", error, method=request.method, route=self.path)
            return failure_page(pages, request)


class ProblemPages:
    """ASGI middleware. A browser that asks for an unknown page, or sends too much, gets an error page; API clients
    still get JSON."""

    def __init__(self, app: ASGIApp, parts: ConsoleParts, api_routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._parts = parts
        self._api_routes = api_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._is_for_a_page(scope):
            await self._app(scope, receive, send)
            return
        status, body = 0, b""

        async def paged(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                if Headers(raw=message["headers"]).get("content-type") != MEDIA_TYPE:
                    await send(message)
                    return
                status = message["status"]
            elif not status:
                await send(message)
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    page = await self._page(Request(scope), status, json.loads(body)["detail"])
                    await page(scope, receive, send)

        await self._app(scope, receive, paged)

    def _is_for_a_page(self, scope: Scope) -> bool:
        if "text/html" not in Headers(scope=scope).get("accept", "") or scope["path"].startswith("/v1/"):
            return False
        return all(route.matches(scope)[0] is Match.NONE for route in self._api_routes)

    async def _page(self, request: Request, status: int, detail: str) -> Response:
        try:
            token = request.cookies.get(COOKIE, "")
            request.state.visitor = await run_in_threadpool(self._parts.sign_in.visitor, token)
        except PAGE_ERRORS:
            request.state.visitor = None
        return plain_page(self._parts.pages, request, status, [detail])
