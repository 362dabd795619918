"""The console for tests: an API that has it, a browser that is signed in, and messages to look at.

A test file imports the fixtures by name: `from tests.support.console import api, operator  # noqa: F401`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import text

from notifier.console.app import add_console
from notifier.domain.message import new_id
from notifier.operations.api_keys import Scope
from notifier.store.engine import transaction
from tests.support.api import Api, Reply
from tests.support.templates import write_templates

#: For every field that strangers can fill.
XSS = "\"'><script>alert(1)</script>{{7*7}}"


class Browser:
    """Keeps the cookie, and sends the token from the last page's forms."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.cookie = ""
        self.form_token = ""

    def sign_in(self, key: str, target: str = "/") -> Reply:
        reply = self._post("/sign-in", {"key": key, "next": target})
        self.keep_cookie(reply)
        return reply

    def keep_cookie(self, reply: Reply) -> None:
        """Keep the session's cookie, if there is one."""
        if found := re.search(r"notifier_console=[^;]+", reply.headers.get("set-cookie", "")):
            self.cookie = found[0]

    def get(self, path: str, **query: Any) -> Reply:
        reply = self._api("GET", path, headers=self._headers(), **query)
        if found := re.search(rb'name="form_token" value="([0-9a-f]+)"', reply.body):
            self.form_token = found[1].decode()
        return reply

    def post(self, path: str, headers: dict[str, str] | None = None, /, **fields: str) -> Reply:
        return self._post(path, {"form_token": self.form_token, **fields}, headers)

    def _post(self, path: str, fields: dict[str, str], headers: dict[str, str] | None = None) -> Reply:
        sent = {**self._headers(), "content-type": "application/x-www-form-urlencoded", **(headers or {})}
        return self._api("POST", path, body=urlencode(fields).encode(), headers=sent)

    def _headers(self) -> dict[str, str]:
        return {"cookie": self.cookie} if self.cookie else {}


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    api = Api(database_url, write_templates(tmp_path))
    add_console(api.app, api.services, api.parts)
    yield api
    api.close()


@pytest.fixture
def operator(api: Api) -> Browser:
    browser = Browser(api)
    assert browser.sign_in(api.key(Scope.OPERATE, producer=None)).status == 303
    browser.get("/search")
    return browser


def send(api: Api, producer: str = "shop", **fields: Any) -> str:
    message = {"channel": "email", "to": "ann@example.com", "template": "hello", "context": {"name": "Ann"}}
    body = {"id": str(new_id()), **message, **fields}
    reply = api("POST", "/v1/notifications", key=api.key(Scope.SEND, producer=producer), json_body=body)
    assert reply.status == 202, reply.body
    return str(reply.json["id"])


def fail(api: Api, *ids: str, **columns: str) -> None:
    with transaction(api.services.engine) as connection:
        connection.execute(
            text(
                "UPDATE states SET status = 'failed', due_at = NULL, reason = 'provider_rejected', "
                "detail = :detail WHERE id = ANY(CAST(:ids AS uuid[]))"
            ),
            {"ids": list(ids), "detail": columns.get("detail", "550 no")},
        )
