"""The console's pages of suppressions. No address is in a URL, nor in the operator's record."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from notifier.domain.statuses import Channel, SuppressionReason
from notifier.operations.api_keys import Scope
from notifier.store.engine import transaction
from tests.support.api import Api
from tests.support.console import XSS, Browser, api, operator, send  # noqa: F401


def records(api: Api, action: str) -> list[dict[str, object]]:
    query = text(
        "SELECT operator, selection, reason, result FROM operator_records WHERE action = :action ORDER BY at"
    )
    with transaction(api.services.engine) as connection:
        return [dict(row) for row in connection.execute(query, {"action": action}).mappings()]


def test_somebody_is_suppressed_looked_up_and_lifted(api: Api, operator: Browser) -> None:
    whom = {"address": " Ann@Example.com "}
    assert b"They are not suppressed, and never were" in operator.post("/suppressions/look-up", **whom).body
    done = operator.post("/suppressions/add", **whom, reason="asked by phone", last_day="2100-01-01")
    assert b"They are suppressed from now on." in done.body
    again = operator.post("/suppressions/add", **whom, last_day="2100-01-01")
    assert b"They were suppressed already" in again.body
    assert b"asked by phone" in operator.post("/suppressions/look-up", **whom).body
    done = operator.post("/suppressions/lift", **whom, scope="global", suppression="manual", reason="a mistake")
    assert b"It is lifted." in done.body
    assert b"They are no longer suppressed" in done.body
    [record] = records(api, "lift_suppression")
    assert (record["reason"], record["result"]["changed"]) == ("a mistake", 1)  # type: ignore[index]
    assert str(record["operator"]).startswith("ops (key ")
    assert [one["reason"] for one in records(api, "suppress")] == ["asked by phone", None]
    assert "example" not in str(record["selection"]).lower()


def test_the_list_shows_hashes_by_reason_and_source(api: Api, operator: Browser) -> None:
    for address, reason, source in (
        ("ann@example.com", SuppressionReason.HARD_BOUNCE, "bounce"),
        ("bob@example.com", SuppressionReason.MANUAL, XSS),
    ):
        api.parts.suppressions.add(
            channel=Channel.EMAIL, address=address, reason=reason, source=source, detail=XSS
        )
    page = operator.get("/suppressions")
    assert page.body.count(b"<code>") == 2
    assert b"<script>alert" not in page.body
    assert b"bob@" not in page.body
    assert operator.get("/suppressions", reason="hard_bounce", source="").body.count(b"<code>") == 1
    assert operator.get("/suppressions", source=XSS, scope="global", ended="true").body.count(b"<code>") == 1
    assert b"No suppressions found" in operator.get("/suppressions", scope=XSS).body


@pytest.mark.parametrize("address", [XSS, "no address", "+1", f"{XSS}@example.com", "a\0@example.com"])
def test_what_is_no_address_is_refused_in_words(operator: Browser, address: str) -> None:
    page = operator.post("/suppressions/look-up", address=address)
    assert page.status == 422
    assert b"<script>alert" not in page.body


def test_a_producers_key_suppresses_nobody(api: Api) -> None:
    browser = Browser(api)
    browser.sign_in(api.key(Scope.READ, Scope.SEND))
    browser.get("/search")
    assert browser.get("/suppressions").status == 403
    for path in ("look-up", "add", "lift"):
        assert browser.post(f"/suppressions/{path}", address="ann@example.com", suppression="manual").status == 403
