"""The console's pages of failed sends and of jobs: groups, a dry run, a job whose page is the result."""

from __future__ import annotations

import re
from functools import partial
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from sqlalchemy import text

from notifier.domain.statuses import Channel, SuppressionReason
from notifier.operations import Selection
from notifier.operations.api_keys import Scope
from notifier.store.engine import transaction
from notifier.store.search import Filter
from tests.support.api import Api, run_all
from tests.support.console import XSS, Browser, api, fail, operator, send  # noqa: F401 - fixtures among them


def set_states(api: Api, change: str, *ids: str) -> None:
    with transaction(api.services.engine) as connection:
        statement = f"UPDATE {change} WHERE id = ANY(CAST(:ids AS uuid[]))"
        connection.execute(text(statement), {"ids": list(ids)})


def fields(page: bytes) -> dict[str, str]:
    """Hidden ones of the page's form, without the token."""
    found = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.decode())
    return {name: value.replace("&#43;", "+") for name, value in found if name != "form_token"}


def figures(page: bytes) -> dict[str, int]:
    found = re.findall(r'subheader">([^<]+)</div>\s*<div class="h1 mb-0">([\d\u202f]+)<', page.decode())
    return {name: int(value.replace("\u202f", "")) for name, value in found}


def test_an_operator_retries_a_group_and_sees_it_done(api: Api, operator: Browser) -> None:
    ids = [send(api, to=f"{name}@example.com") for name in ("ann", "bob", "cy", "dee")]
    fail(api, *ids)
    api.parts.suppressions.add(
        channel=Channel.EMAIL, address="bob@example.com", reason=SuppressionReason.OPTED_OUT, source="operator:ann"
    )
    set_states(api, "messages SET expires_at = now() - interval '1 second'", ids[2])
    set_states(api, "messages SET secret_names = '{}'", ids[3])
    listed = operator.get("/failed")
    assert b"4 ended without success" in listed.body
    address = re.findall(r'href="(/failed/retry\?[^"]*)">Retry', listed.body.decode())[0]
    path, _, query = address.replace("&amp;", "&").partition("?")
    dry = operator.get(path, **dict(parse_qsl(query)))
    counts = {"Would be retried": 2, "Would end suppressed": 1, "Expired": 1, "Content gone": 1}
    assert figures(dry.body) == counts
    assert api.services.audit.story(UUID(ids[0])).notification.status == "failed"
    started = operator.post(path, **fields(dry.body), why="the relay is back", rate="50")
    assert started.status == 303, started.body
    page = started.headers["location"]
    waiting = operator.get(page)
    assert b"It waits for a worker" in waiting.body
    assert b"hx-get" in waiting.body
    assert "hx-refresh" not in operator.get(f"{page}/now").headers
    work(api)
    assert operator.get(f"{page}/now").headers["hx-refresh"] == "true"
    result = operator.get(page).body
    assert b"2 retried. The job is done." in result
    assert b"the relay is back" in result
    assert b"hx-get" not in result
    assert b"Stop the job" not in result
    assert page.encode() in operator.get("/jobs").body
    assert api.services.audit.story(UUID(ids[0])).notification.status == "retrying"


def test_a_cause_leads_to_its_messages(api: Api, operator: Browser) -> None:
    first, second = send(api), send(api, to="bob@example.com")
    fail(api, first, second)
    set_states(api, "states SET provider = 'relay-EU'", first)
    listed = re.findall(r'href="(/search\?[^"]*relay-EU[^"]*)"', operator.get("/failed").body.decode())
    path, _, query = listed[0].replace("&amp;", "&").partition("?")
    page = operator.get(path, **dict(parse_qsl(query))).body
    assert (first.encode() in page, second.encode() in page) == (True, False)
    assert b"Retry these" in page
    assert b"Failed ones, to retry" in operator.get("/search").body


def work(api: Api) -> None:
    jobs = api.services.jobs
    jobs.dispatch(partial(run_all, jobs))


def test_a_search_becomes_a_job_that_can_be_stopped(api: Api, operator: Browser) -> None:
    hers, _ = send(api), send(api, to="bob@example.com")
    fail(api, hers, _)
    listed = operator.post("/search", typed="ann@example.com").headers["location"]
    hashes = listed.partition("to=")[2].replace("%2C", ",")
    search = operator.get("/search", to=hashes, status="failed")
    assert b"/failed/retry?to=" in search.body
    dry = operator.get("/failed/retry", to=hashes, status="failed")
    assert figures(dry.body)["Would be retried"] == 1
    unsaid = operator.post("/failed/retry", **fields(dry.body), why=" ", rate="5")
    assert (unsaid.status, b"Say why" in unsaid.body, b'value="5"' in unsaid.body) == (422, True, True)
    page = operator.post("/failed/retry", **fields(dry.body), why="wrong ones").headers["location"]
    assert operator.get(page).status == 200
    assert operator.post(f"{page}/stop", reason="wrong ones").status == 303
    assert b"It stops within seconds" in operator.get(page).body
    work(api)
    assert b"then it was stopped" in operator.get(page).body
    again = operator.post(f"{page}/stop")
    assert again.status == 422
    assert operator.get("/failed/retry", status="sent").status == 422
    assert operator.get("/failed/retry", status="failed", begin="yesterday").status == 422
    assert operator.post("/failed/retry", status="failed", rate="-1").status == 422


def test_who_may_not_act_sees_none_of_it(api: Api) -> None:
    job = api.parts.jobs.retry(Selection(filter=Filter(status="failed")), operator="ann")
    browser = Browser(api)
    browser.sign_in(api.key(Scope.READ))
    assert b'href="/failed"' not in browser.get("/search").body
    for path in ("/failed", "/failed/retry", "/jobs", f"/jobs/{job.id}", f"/jobs/{job.id}/now"):
        assert browser.get(path).status == 403
    assert browser.post("/failed/retry", status="failed").status == 403
    assert browser.post(f"/jobs/{job.id}/stop").status == 403
    assert api.parts.jobs.find(job.id).stop_asked_at is None


def test_what_strangers_wrote_stays_text(api: Api, operator: Browser) -> None:
    fail(api, send(api, reference=XSS))
    set_states(api, "states SET provider = '<script>alert(1)</script>'", *all_ids(api))
    operator.get("/failed/retry", reference=XSS)
    started = operator.post("/failed/retry", reference=XSS, why=XSS)
    pages = ["/failed", "/jobs", started.headers["location"]]
    assert all(b"<script>alert" not in operator.get(page).body for page in pages)
    wanted: dict[str, Any] = {"reference": XSS, "provider": XSS, "template": XSS}
    assert b"<script>alert" not in operator.get("/failed/retry", **wanted).body


def all_ids(api: Api) -> list[str]:
    return [str(one.id) for one in api.services.audit.search(Filter(), limit=10)]
