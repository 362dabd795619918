"""The console's pages of recurring notifications."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text

from notifier.operations.api_keys import Scope
from notifier.store import recurring_runs
from notifier.store.engine import transaction
from tests.support.api import Api
from tests.support.console import XSS, Browser, api, operator  # noqa: F401


def plan(api: Api, *recipients: dict[str, Any], **fields: Any) -> str:
    made = {"name": "digest", "cron": "30 9 * * 1-5", "zone": "Europe/Berlin", "channel": "email"}
    body = {**made, "template": "hello", "recipients": recipients or [line("ann")], **fields}
    reply = api("POST", "/v1/recurring", key=api.key(Scope.SEND), json_body=body)
    assert reply.status == 201, reply.body
    return str(reply.json["id"])


def line(name: str) -> dict[str, Any]:
    return {"to": f"{name}@example.com", "context": {"name": name}}


def test_one_is_run_paused_resumed_and_deleted(api: Api, operator: Browser) -> None:
    assert b"No recurring notifications" in operator.get("/recurring").body
    planned = plan(api, line("ann"), line("bo"), {"to": "a b@example.com", "context": {"name": "Cy"}})
    listed = operator.get("/recurring").body
    assert b"At 09:30 on Monday through Friday, Europe/Berlin" in listed
    path = f"/recurring/{planned}"
    asked = operator.post(f"{path}/run", reason="a first look")
    assert b"It is sent within a minute" in asked.body
    assert operator.post(f"{path}/run").status == 422  # under way
    assert api.services.recurring_runs.tick() == {"accepted": 2, "refused": 1}
    page = operator.get(path).body
    assert b"2 accepted, 1 refused" in page
    assert b"by hand" in page
    assert b"Line 3: to: not an e-mail address" in page
    assert b"1 of 1 did not reach everybody" in operator.get("/recurring").body
    assert b"It is paused" in operator.post(f"{path}/pause", reason="holidays").body
    assert b"not while it is paused" in operator.get("/recurring").body
    assert b"09:30 CE" in operator.post(f"{path}/resume").body
    gone = operator.post(f"{path}/delete", reason="nobody reads it")
    assert b"digest and its list are deleted" in gone.body
    assert operator.get(path).status == operator.get(f"{path}/now").status == 404
    log = operator.get("/log").body
    for reason in (b"a first look", b"holidays", b"nobody reads it"):
        assert reason in log


def test_runs_that_have_ended_are_kept_and_the_oldest_go(
    api: Api, operator: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurring_runs, "KEPT_RUNS", 2)
    planned = plan(api)
    execute(api, "UPDATE recurring_notifications SET next_at = now() - interval '10 days'")
    api.services.recurring_runs.tick()
    assert b"was missed" in operator.get(f"/recurring/{planned}").body
    for _ in range(3):
        operator.post(f"/recurring/{planned}/run")
        api.services.recurring_runs.tick()
    runs = api("GET", f"/v1/recurring/{planned}", key=api.key(Scope.READ)).json["runs"]
    moments = [datetime.fromisoformat(run["run_at"]) for run in runs]
    assert moments == sorted(moments, reverse=True)
    assert [(run["accepted"], run["by_hand"], run["note"]) for run in runs] == [(1, True, None)] * 3


def test_a_producer_sees_its_own_alone_and_acts_only_if_it_may_send(api: Api) -> None:
    planned = plan(api)
    fault = json.dumps([{"line": 1, "field": XSS, "problem": XSS, "fix": XSS, "code": "x"}])
    execute(
        api,
        "UPDATE recurring_notifications SET note = :xss, sender = :xss, run_faults = CAST(:faults AS jsonb)",
        xss=XSS,
        faults=fault,
    )
    others = Browser(api)
    others.sign_in(api.key(Scope.READ, Scope.SEND, producer="bank"))
    others.get("/search")
    assert b"digest" not in others.get("/recurring").body
    assert others.get(f"/recurring/{planned}").status == 404
    assert others.post(f"/recurring/{planned}/pause").status == 404
    reader = Browser(api)
    reader.sign_in(api.key(Scope.READ))
    pages = [reader.get("/recurring"), reader.get(f"/recurring/{planned}")]
    assert all(b"script&gt;alert" in page.body and b"<script>alert" not in page.body for page in pages)
    assert b"What you can do" not in pages[1].body
    assert reader.post(f"/recurring/{planned}/delete").status == 403


def execute(api: Api, statement: str, **values: str) -> None:
    with transaction(api.services.engine) as connection:
        connection.execute(text(statement), values)
