"""The console's operator log: who did what, found again and exported."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from urllib.parse import unquote

from notifier.domain.csv_rows import read_rows
from notifier.operations.api_keys import Scope
from tests.support.api import Api
from tests.support.console import XSS, Browser, api, operator, send  # noqa: F401


def cancel(api: Api, operator: Browser, reason: str) -> str:
    """Returns the id of what was cancelled."""
    one = send(api)
    assert operator.post(f"/notifications/{one}/cancel", reason=reason).status == 200
    return one


def exported(operator: Browser, **query: str) -> list[dict[str, object]]:
    file = operator.get("/log", export="jsonl", **query)
    assert "attachment" in file.headers["content-disposition"]
    return [json.loads(line) for line in file.body.splitlines()]


def test_the_log_finds_who_did_what_and_exports_it(api: Api, operator: Browser) -> None:
    one, other = cancel(api, operator, "a test"), cancel(api, operator, XSS)
    page = operator.get("/log", action="cancel", operator="OPS")
    assert page.body.count(b'data-label="Action">cancel<') == 2
    assert b"<script>alert" not in page.body
    found = exported(operator, action="cancel")
    assert [(row["selection"], row["reason"]) for row in found] == [
        ({"ids": [other]}, XSS),
        ({"ids": [one]}, "a test"),
    ]
    assert found[0]["result"]["changed"] == 1  # type: ignore[index]
    shown = operator.get(f"/log/{found[0]['id']}")
    assert f'href="/notifications/{other}"'.encode() in shown.body
    assert b"<script>alert" not in shown.body
    today, rows = datetime.now(UTC).date().isoformat(), operator.get("/log", export="csv", action="cancel")
    header, first, _ = read_rows(rows.body.decode().splitlines(keepends=True))
    assert dict(zip(header.cells, first.cells, strict=True))["reason"] == XSS
    assert b"No records found" in operator.get("/log", operator=XSS).body
    assert b"No records found" in operator.get("/log", operator="_ps").body
    assert operator.get("/log", operator="o\0ps").status == 422
    assert b"No records found" in operator.get("/log", day="2000-01-01").body
    assert len(exported(operator, day=today, action="cancel")) == 2


def test_look_ups_and_exports_are_kept_without_the_address(api: Api, operator: Browser) -> None:
    send(api)
    address = "ann@example.com"
    listed = operator.post("/search", typed=address).headers["location"]
    hashed = unquote(listed.partition("to=")[2])
    assert operator.get("/search", to=hashed, export="csv").status == 200
    assert operator.post("/suppressions/look-up", address=address).status == 200
    found = [row for row in exported(operator) if row["action"] != "create_key"]
    assert [row["action"] for row in found] == ["look_up", "export", "look_up"]
    assert hashed in str(found[0]["selection"])
    assert address not in str(found)


def test_what_an_operators_key_reads_over_the_api_is_kept_too(api: Api, operator: Browser) -> None:
    send(api)
    address, key = "ann@example.com", api.key(Scope.OPERATE)
    search = partial(api, "GET", "/v1/notifications")
    found = search(key=key, recipient=address, limit=1)
    for query in ({"recipient": address, "after": found.json["next"]}, {"status": "queued"}):
        assert search(key=key, **query).status == 200
    assert search(key=key, format="csv", status="queued").status == 200
    # A producer reads what it sent itself.
    assert len(search(key=api.key(Scope.READ), recipient=address).json["items"]) == 1
    kept = [row for row in exported(operator) if row["action"] != "create_key"]
    assert [row["action"] for row in kept] == ["export", "look_up"]
    assert address not in str(kept)


def test_a_producers_key_reads_no_log(api: Api, operator: Browser) -> None:
    cancel(api, operator, "a test")
    [record] = exported(operator, action="cancel")
    browser = Browser(api)
    browser.sign_in(api.key(Scope.READ, Scope.SEND))
    assert browser.get("/log").status == 403
    assert browser.get(f"/log/{record['id']}").status == 403
