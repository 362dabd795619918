"""The console's first page: what it calls well, and what it asks before a provider is paused."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from notifier.console.app import add_console
from notifier.domain.statuses import Reason
from notifier.operations.api_keys import Scope
from notifier.store.circuits import CircuitKey
from notifier.store.minute_counts import FailedAddition
from tests.support.api import Api
from tests.support.console import Browser, send
from tests.support.templates import write_templates


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    relays = [{"name": name, "kind": "smtp", "url": "smtp://127.0.0.1:1"} for name in ("smtp", "relay-eu")]
    structure = {"senders": {"default": {"email": "shop@example.com"}}, "providers": relays}
    api = Api(database_url, write_templates(tmp_path), structure=structure)
    add_console(api.app, api.services, api.parts)
    yield api
    api.close()


def test_a_relay_that_refuses_every_mail_is_not_well(api: Api) -> None:
    operator = Browser(api)
    operator.sign_in(api.key(Scope.OPERATE, producer=None))
    assert b"All is well" in operator.get("/health/now").body
    api.services.minute_counts.add([], [FailedAddition("email", "provider_rejected", 300)])
    page = operator.get("/health/now").body.decode()
    assert "Something needs your attention" in page
    assert "300 of 300 email sends failed in the last hour; most often: the provider refused it for good" in page
    assert re.search(r'href="/failed".{,200}300', page, re.DOTALL)


def test_an_endpoint_that_is_suspended_is_not_well(api: Api) -> None:
    with api.services.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO callback_endpoints (endpoint, producer, failing_since, failures, suspended_at, failure)"
            " VALUES ('shop', 'shop', now(), 9, now(), 'refused')"
        )
    operator = Browser(api)
    operator.sign_in(api.key(Scope.OPERATE, producer=None))
    page = html.unescape(operator.get("/health/now").body.decode())
    assert "Something needs your attention" in page
    assert "0 callbacks of shop: every call for days has failed (last: refused), so it is suspended" in page
    assert "notifier callbacks resume 'shop'" in page


def test_a_pause_says_what_waits_and_keeps_its_reason(api: Api) -> None:
    send(api)
    operator = Browser(api)
    operator.sign_in(api.key(Scope.OPERATE, producer=None))
    assert b"smtp sends email in the meantime" in operator.get("/providers/relay-eu/pause").body
    operator.post("/providers/relay-eu/pause", reason="it is slow")
    asked = operator.get("/providers/smtp/pause").body
    assert b"No other provider sends email" in asked
    assert b"1 email is due now" in asked
    assert operator.get("/providers/nobody/pause").status == 404
    unsaid = [
        operator.post(f"/providers/smtp/{act}", reason=why) for act in ("pause", "resume") for why in ("", " ")
    ]
    assert [(page.status, b"Say why" in page.body) for page in unsaid] == [(422, True)] * 4
    assert b"paused by an operator" not in operator.get("/health/now").body.partition(b"relay-eu")[0]
    done = operator.post("/providers/smtp/pause", reason="it refuses every mail").body
    assert b"smtp is paused" in done
    assert b"paused by an operator" in done
    assert b"it refuses every mail" in operator.get("/log").body
    assert b"smtp is in use again" in operator.post("/providers/smtp/resume", reason="it works").body


def test_what_fails_by_itself_can_be_paused_too(api: Api) -> None:
    api.services.circuits.open(CircuitKey("smtp"), 60.0, Reason.PROVIDER_UNAVAILABLE, "away", by=None, again=False)
    operator = Browser(api)
    operator.sign_in(api.key(Scope.OPERATE, producer=None))
    page = operator.get("/").body
    assert b"smtp does not work" in page
    assert b"stopped by itself: calls fail" in page
    assert (b"/providers/smtp/pause" in page, b"/providers/smtp/resume" in page) == (True, True)
