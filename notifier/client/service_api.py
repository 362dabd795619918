"""Carries the requests of a `Conversation` to the HTTP API: one class for threads, one for asyncio.

Needs the extra `http`; importing this module does not load it.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from notifier.client.addresses import ApiAddress, ApiSearch
from notifier.client.conversations import ApiReply, ApiRequest, Conversation, Pause
from notifier.domain.errors import ConfigurationError, MissingPackage

if TYPE_CHECKING:
    import httpx2

_T = TypeVar("_T")


class ServiceApi:
    """Thread-safe; its connections are made when they are needed, and anew after a fork. Every request ends
    `timeout_seconds` after the service should have answered."""

    def __init__(self, find: Callable[[], ApiAddress], timeout_seconds: float) -> None:
        """`find` is called for the first request; what it raises is raised there."""
        self._find = find
        self._timeout_seconds = timeout_seconds
        #: Process id → its connections.
        self._clients: dict[int, httpx2.Client] = {}

    def run(self, conversation: Conversation[_T]) -> _T:
        """The result of a conversation, or what it raises."""
        step = next(conversation)
        while True:
            try:
                step = conversation.send(self._do(step))
            except StopIteration as end:
                result: _T = end.value
                return result

    def close(self) -> None:
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _do(self, step: ApiRequest | Pause) -> ApiReply:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return ApiReply()
        errors = _httpx2().HTTPError
        try:
            answer = self._client().request(**_arguments(step, self._timeout_seconds))
        except errors as error:
            return _no_answer(error)
        return _reply(answer)

    def _client(self) -> httpx2.Client:
        client = self._clients.get(os.getpid())
        if client is None:
            made = _httpx2().Client(**_settings(self._find()))
            # Of two threads that made one, one wins; the other's has opened nothing.
            client = self._clients.setdefault(os.getpid(), made)
        return client


#: Asks whom the environment names, for who has no client; an answer is waited for at most 5 s.
default_api = ServiceApi(ApiSearch().find, 5.0)
atexit.register(default_api.close)


class AsyncServiceApi:
    """The same for one event loop."""

    def __init__(self, find: Callable[[], ApiAddress], timeout_seconds: float) -> None:
        self._find = find
        self._timeout_seconds = timeout_seconds
        self._client: httpx2.AsyncClient | None = None

    async def run(self, conversation: Conversation[_T]) -> _T:
        """The result of a conversation, or what it raises."""
        step = next(conversation)
        while True:
            try:
                step = conversation.send(await self._do(step))
            except StopIteration as end:
                result: _T = end.value
                return result

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _do(self, step: ApiRequest | Pause) -> ApiReply:
        if isinstance(step, Pause):
            # Imported here: who uses no asyncio need not load it.
            import asyncio

            await asyncio.sleep(step.seconds)
            return ApiReply()
        errors = _httpx2().HTTPError
        if self._client is None:
            self._client = _httpx2().AsyncClient(**_settings(self._find()))
        try:
            answer = await self._client.request(**_arguments(step, self._timeout_seconds))
        except errors as error:
            return _no_answer(error)
        return _reply(answer)


def _httpx2() -> Any:
    try:
        import httpx2
    except ModuleNotFoundError:
        raise MissingPackage("asking the service over HTTP needs an extra: pip install 'notifier[http]'") from None
    return httpx2


def _settings(address: ApiAddress) -> dict[str, Any]:
    try:
        headers = {"authorization": f"Bearer {address.key}".encode("ascii")}
        return {"base_url": _httpx2().URL(address.url), "headers": headers}
    except UnicodeEncodeError:
        raise ConfigurationError(
            "the key of the HTTP API is none: ntf_live_…", setting="NOTIFIER_API_KEY"
        ) from None
    except _httpx2().InvalidURL:
        raise ConfigurationError(
            "the address of the HTTP API is no URL: write https://notifier.example.com", setting="NOTIFIER_API_URL"
        ) from None


def _arguments(request: ApiRequest, timeout_seconds: float) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.path,
        "params": list(request.query),
        "content": request.body,
        "headers": [] if request.body is None else list(request.headers),
        "timeout": timeout_seconds + request.held_seconds,
    }


def _reply(answer: httpx2.Response) -> ApiReply:
    seconds = answer.headers.get("retry-after", "")
    return ApiReply(answer.status_code, answer.content, float(seconds) if seconds.isdecimal() else 0.0)


def _no_answer(error: Exception) -> ApiReply:
    # Only the kind: the text may hold the address, and with it a password.
    return ApiReply(problem=f"no answer ({type(error).__name__})")
