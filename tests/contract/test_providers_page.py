"""The provider in docs/how-to/add-a-provider.md works as it stands there."""

from __future__ import annotations

import asyncio
import re
import sys
import types
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from notifier.domain.errors import ConfigurationError, SendError, Unavailable
from notifier.domain.statuses import Outcome
from notifier.providers.base import Outgoing, Receipt, Reconciles, Sought

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-provider.md"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ANSWERS = {
    "+15550100101": (201, {"id": "m1"}),
    "+15550100102": (400, {"code": "bad_number", "message": "bad +15550100102"}),
    "+15550100103": (429, {"code": "slow_down"}),
    "+15550100104": (402, {"code": "no_credit"}),
    "+15550100105": (400, {"code": "other"}),
    "+15550100106": (500, {}),
}


@pytest.fixture(scope="module")
def page() -> Any:
    """The page's Python, as a module."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    module = types.ModuleType("page_example")
    sys.modules[module.__name__] = module
    exec(compile("\n".join(blocks), str(PAGE), "exec"), module.__dict__)
    return module


@pytest.fixture(scope="module")
def example(page: Any) -> Any:
    return page.AcmeProvider


async def outcome_of(example: Any, url: str, to: str) -> Outcome:
    provider = example.from_options("acme", {"url": url, "token": "secret"})
    outgoing = Outgoing(uuid4(), 1, to, "Shop", "hi")
    try:
        receipt = await provider.send(outgoing, deadline_seconds=5)
    except SendError as error:
        return error.outcome
    finally:
        await provider.close()
    assert receipt.provider_message_id == "m1"
    return Outcome.ACCEPTED


def test_the_example_ends_each_answer_in_its_outcome(example: Any) -> None:
    async def answer(request: web.Request) -> web.Response:
        status, body = ANSWERS[str((await request.post())["to"])]
        return web.json_response(body, status=status)

    async def run() -> list[Outcome]:
        application = web.Application()
        application.router.add_post("/messages", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        outcomes = [await outcome_of(example, url, to) for to in ANSWERS]
        await runner.cleanup()
        return [*outcomes, await outcome_of(example, url, "+15550100101")]

    assert asyncio.run(run()) == [
        Outcome.ACCEPTED,
        Outcome.REJECTED,
        Outcome.THROTTLED,
        Outcome.UNAVAILABLE,
        Outcome.REJECTED,
        Outcome.UNKNOWN,
        # The server is gone.
        Outcome.UNAVAILABLE,
    ]


def test_the_example_refuses_an_option_that_it_does_not_know(example: Any) -> None:
    with pytest.raises(ConfigurationError, match="tokn is not an option"):
        example.from_options("acme", {"url": "http://x.example", "token": "t", "tokn": "t"})


FOUND = {
    UUID(int=1): (200, {"id": "m1", "status": "delivered"}),
    UUID(int=2): (404, {}),
    UUID(int=3): (200, {"id": "known", "status": "delivered"}),
    UUID(int=4): (500, {}),
}


def test_the_example_finds_what_the_api_has(page: Any) -> None:
    async def answer(request: web.Request) -> web.Response:
        status, body = FOUND[UUID(request.query["key"])]
        return web.json_response(body, status=status)

    async def found(provider: Any, id_: UUID) -> Sequence[Receipt] | type[Unavailable]:
        sought = Sought(id_, 1, "+15550100101", "Shop", "hi", NOW, exclude=frozenset({"known"}))
        try:
            receipts: Sequence[Receipt] = await provider.find(sought, deadline_seconds=5)
        except Unavailable:
            return Unavailable
        return receipts

    async def run() -> list[Sequence[Receipt] | type[Unavailable]]:
        application = web.Application()
        application.router.add_get("/messages", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        provider = page.SearchableAcmeProvider.from_options("acme", {"url": url, "token": "secret"})
        assert isinstance(provider, Reconciles)
        answers = [await found(provider, id_) for id_ in FOUND]
        await runner.cleanup()
        answers.append(await found(provider, UUID(int=1)))
        await provider.close()  # type: ignore[attr-defined]
        return answers

    assert asyncio.run(run()) == [
        [Receipt("m1", "delivered")],
        [],
        [],
        Unavailable,
        # The server is gone.
        Unavailable,
    ]
