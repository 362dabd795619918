"""A provider from a package outside the project: the one of docs/how-to/add-a-provider.md, installed as pip would.

Nothing in notifier knows it. It sends, its webhook counts, and `notifier doctor` looks at it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from notifier.bootstrap import Services
from notifier.cli.check_result import Check
from notifier.cli.checks import check_providers_and_senders
from notifier.config.structure import ProviderTable
from notifier.dev.server_thread import running
from notifier.domain.errors import ConfigurationError
from notifier.domain.statuses import Status
from notifier.providers import registry
from notifier.worker.runtime import DeliveryLoop
from tests.support.api import Api, Reply
from tests.support.receipts import Texts
from tests.support.templates import write_templates

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-provider.md"
PUBLIC, SECRET = "https://notify.example.com", "hush"
METADATA = "Metadata-Version: 2.1\nName: acme-notifier\nVersion: 1.0\n"


@dataclass
class Acme:
    """Its API: takes every message."""

    port: int = 0
    messages: list[dict[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        application = web.Application()
        application.router.add_post("/messages", self._take)
        application.router.add_get("/account", self._tell)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.tokens.add(request.headers["Authorization"])
        self.messages.append({name: str(value) for name, value in (await request.post()).items()})
        return web.json_response({"id": f"m{len(self.messages)}"}, status=201)

    async def _tell(self, _: web.Request) -> web.Response:
        return web.json_response({"name": "shop"})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's package, as pip leaves it."""
    site = tmp_path / "site-packages"
    metadata = site / "acme_notifier-1.0.dist-info"
    metadata.mkdir(parents=True)
    page = PAGE.read_text("utf-8")
    (site / "acme_notifier.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)))
    [entry_points] = re.findall(r'```toml\n\[project\.entry-points\."(.*?)"\]\n(.*?)```', page, re.DOTALL)
    (metadata / "METADATA").write_text(METADATA)
    (metadata / "entry_points.txt").write_text(f"[{entry_points[0]}]\n{entry_points[1]}".replace('"', ""))
    monkeypatch.syspath_prepend(site)
    registry._entries.cache_clear()
    yield
    registry._entries.cache_clear()


@pytest.fixture
def acme(installed: None) -> Iterator[Acme]:
    with running(Acme()) as server:
        yield server


@pytest.fixture
def api(database_url: str, tmp_path: Path, acme: Acme) -> Iterator[Api]:
    table = {
        "name": "text",
        "kind": "acme",
        "url": f"http://127.0.0.1:{acme.port}",
        "token": "t",
        "webhook_secret": SECRET,
    }
    structure = {"senders": {"default": {"sms": "+15550100100"}}, "providers": [table]}
    templates = write_templates(tmp_path / "templates")
    api = Api(database_url, templates, structure=structure, public_url=PUBLIC)
    yield api
    api.close()


def report(api: Api, path: str, content: dict[str, Any], secret: str = SECRET) -> Reply:
    body = json.dumps(content).encode()
    signature = hmac.new(secret.encode(), path.encode() + body, hashlib.sha256).hexdigest()
    return api("POST", path, body=body, headers={"X-Acme": signature})


def test_a_message_goes_out_through_it_and_its_signed_report_counts(api: Api, acme: Acme) -> None:
    texts = Texts(api.services.engine)
    delivery = DeliveryLoop(Services(api.services.settings))
    [id_] = texts.accept(context={"code": "4711"})
    delivery.deliverer.deliver([id_])
    delivery.stop()
    [message] = acme.messages
    assert (message["from"], acme.tokens, texts.status(id_)) == ("+15550100100", {"Bearer t"}, Status.SENT)
    # Nobody can ask it, so its report is waited for.
    assert texts.story(id_).notification.due_at is not None

    path = message["report_to"].removeprefix(PUBLIC)
    assert report(api, path, {"id": "m1", "status": "delivered"}, secret="guessed").status == 403
    assert report(api, path.replace("/1", "/x"), {"id": "m1", "status": "delivered"}).status == 404
    assert texts.status(id_) == Status.SENT
    assert report(api, path, {"id": "m1", "status": "delivered"}).status == 204
    assert texts.status(id_) == Status.DELIVERED


def test_the_doctor_looks_at_it_and_at_its_webhooks(api: Api) -> None:
    found = list(check_providers_and_senders(api.services))
    assert Check("provider text", True, "account shop is ready") in found
    assert Check("receipts of text", True, f"come to {PUBLIC}/webhooks/acme/") in found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "provider text: url is missing: set it to the API's address, like https://api.example.com"),
        ({"url": "x", "token": "secret"}, "provider text: url must be a URL like https://notify.example.com"),
        (
            {"url": "https://x.example", "token": "secret", "tokn": "secret"},
            "provider text: tokn is not an option; there are url, token, public_url, webhook_secret",
        ),
    ],
)
def test_a_wrong_option_is_named_with_the_fix(api: Api, options: dict[str, str], words: str) -> None:
    table = ProviderTable.model_validate({"name": "text", "kind": "acme", **options})
    with pytest.raises(ConfigurationError) as wrong:
        registry.load(table, api.services.settings)
    assert str(wrong.value) == words
