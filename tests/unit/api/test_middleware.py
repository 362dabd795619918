"""A request that is under way when the grace of a stopping API is over."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from notifier.api.middleware import Shield

SCOPE: Scope = {"type": "http", "path": "/v1/notifications", "headers": [], "method": "GET"}


async def _nothing() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("begun", [False, True])
def test_it_is_answered_if_it_can_be_and_leaves_no_trace(begun: bool) -> None:
    sent: list[Message] = []

    async def slow(_scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    async def send(message: Message) -> None:
        sent.append(message)

    async def cut_off() -> None:
        request = asyncio.create_task(Shield(slow)(SCOPE, _nothing, send))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        request.cancel("timeout graceful shutdown exceeded")
        await request

    asyncio.run(cut_off())
    assert sent[0]["status"] == (200 if begun else 503)
