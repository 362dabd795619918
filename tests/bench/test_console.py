"""The pages that the console is measured by are there, and the table says what was found."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from bench import console, console_past
from bench.console_requests import Asked
from notifier.console.app import add_console
from notifier.console.pages import MENU
from notifier.operations.api_keys import Scope
from tests.support.api import Api
from tests.support.console import Browser

ROWS = 3000
#: The one page that asks the broker.
OF_BROKER = "/dead-letters"


def test_every_page_that_is_measured_is_there(database_url: str) -> None:
    console_past.fill(database_url, ROWS)
    api = Api(database_url, console.TEMPLATES)
    add_console(api.app, api.services, api.parts)
    admin = Browser(api)
    admin.sign_in(api.key(Scope.ADMIN, producer=None))
    admin.get("/search")
    asked = console.pages(console_past.examples(database_url), datetime.now(UTC))
    assert {item.path for item in MENU} <= asked.keys()
    found = {name: _status(admin, one) for name, one in asked.items() if name != OF_BROKER}
    api.close()
    assert {name: status for name, status in found.items() if status not in (200, 303)} == {}


def _status(visitor: Browser, asked: Asked) -> int:
    parts = urlsplit(asked.path)
    if asked.fields is None:
        return visitor.get(parts.path, **dict(parse_qsl(parts.query))).status
    return visitor.post(parts.path, **asked.fields).status


def test_table_has_each_page_and_what_was_too_slow() -> None:
    one = {"p50": 8.4, "p95": 12.6, "max": 30.0, "count": 30, "cpu_console": 5.0, "cpu_postgresql": 1.2}
    found = {"pages": {"/": one}, "paints": {"/": {"paint": 150, "paint_max": 190}}, "others_percent": 3}
    facts = {"cores": 2, "cpu": "One", "memory_gib": 8, "postgresql": "15", "python": "3.11"}
    text = console.table(found, facts, 1_000_000)
    assert "| / | 8 | 13 | 30 | 5 | 1 | 150 (≤ 190) |" in text
    assert "1 000 000 notifications of 60 days" in text
    assert not console.is_slow(found)
    assert console.is_slow({**found, "pages": {"/": {**one, "p95": 201.0}}})
    assert console.is_slow({**found, "paints": {"/": {"paint": 1001, "paint_max": 1001}}})
