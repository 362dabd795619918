"""The console's page of what waits for a decision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from notifier.config.limits import SuppressionTable
from notifier.console.app import add_console
from notifier.console.routes import unknown
from notifier.operations.api_keys import Scope
from notifier.store.engine import transaction
from notifier.store.held_suppressions import HeldSuppressionRepository
from tests.support import bounce_mails as mails
from tests.support.api import Api
from tests.support.bounced import ADDRESS, KEY, Mails
from tests.support.console import XSS, Browser, operator, send  # noqa: F401
from tests.support.templates import write_templates


@pytest.fixture
def sent(database_url: str, tmp_path: Path) -> Iterator[Mails]:
    rule = SuppressionTable(max_hard_bounce_share=0.1, min_messages=5)
    made = Mails(database_url, write_templates(tmp_path / "of_mails"), alarm=rule)
    yield made
    made.services.close()


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    api = Api(database_url, write_templates(tmp_path / "of_api"), hash_key=KEY, bounce_address=ADDRESS)
    add_console(api.app, api.services, api.parts)
    yield api
    api.close()


def lose(api: Api, *ids: str, provider: str = "smtp") -> None:
    """Nobody knows what became of them."""
    query = (
        "UPDATE states SET status = 'unknown', due_at = NULL, reason = 'outcome_unknown', provider = :provider "
        "WHERE id = ANY(CAST(:ids AS uuid[]))"
    )
    with transaction(api.services.engine) as connection:
        connection.execute(text(query), {"ids": list(ids), "provider": provider})


def status(api: Api, id_: str) -> str:
    return api.services.audit.story(UUID(id_)).notification.status


def test_a_group_of_unknown_outcomes_is_resolved_after_a_dry_run(api: Api, operator: Browser) -> None:
    assert b"Nothing waits for your decision" in operator.get("/unknown").body
    ours = [send(api, to=XSS_ADDRESS), send(api)]
    other = send(api)
    lose(api, *ours)
    lose(api, other, provider=XSS)
    page = operator.get("/unknown")
    assert b"3 outcomes are unknown" in page.body
    assert b"/unknown?provider=smtp&amp;template=hello#resolve" in page.body
    assert b"No: look in the provider's log" in page.body
    assert b"<script>alert" not in page.body + operator.get("/unknown", provider=XSS, template=XSS).body
    group = {"provider": "smtp", "template": "hello", "resolution": "sent"}
    assert (
        b"2 notifications would be recorded as sent."
        in operator.post("/unknown/resolve", dry_run="true", **group).body
    )
    assert status(api, ours[0]) == "unknown"
    done = operator.post("/unknown/resolve", reason="in its log", **group)
    assert b"2 notifications are recorded as sent." in done.body
    assert [status(api, one) for one in (*ours, other)] == ["sent", "sent", "unknown"]
    assert b"in its log" in operator.get(f"/notifications/{ours[0]}").body
    again = operator.post("/unknown/resolve", notification=other, resolution="resend")
    assert b"1 notification is sent again." in again.body
    assert status(api, other) == "retrying"


XSS_ADDRESS = '"<script>alert(1)</script>" <ann@example.com>'


def test_held_suppressions_are_applied_or_discarded_with_a_reason(
    api: Api, operator: Browser, sent: Mails
) -> None:
    for number in range(6):
        address = f"person{number}@example.net"
        id_ = sent.send(address)
        sent.bounce(mails.POSTFIX.replace("zoe@example.net", address), id_)
    holding = api.services.held.holding()
    assert holding is not None
    assert holding.held
    # How many depends on when the alarm looked.
    held = "1 held suppression" if holding.held == 1 else f"{holding.held} held suppressions"
    page = operator.get("/unknown")
    assert b"Too many hard bounces in an hour" in page.body
    dry = operator.post("/held/end", apply="false", dry_run="true")
    assert f"{held} would be discarded." in dry.body.decode()
    assert operator.post("/held/end", apply="false").status == 422
    with HeldSuppressionRepository(api.services.engine).deciding():
        late = operator.post("/held/end", apply="false", reason="it was our fault")
    assert (late.status, b"Somebody decides about held suppressions just now" in late.body) == (422, True)
    done = operator.post("/held/end", apply="true", reason="a list of last year")
    assert f"{held} {'is' if holding.held == 1 else 'are'} applied." in done.body.decode()
    assert len(sent.suppressed("person5@example.net")) == 1


def test_a_mail_that_came_back_unread_is_read_by_admins(
    api: Api, operator: Browser, sent: Mails, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = sent.send()
    sent.bounce(f"From: Zoe <zoe@example.net>\nTo: {{to}}\nSubject: Re: Your order\n\nCall me. {XSS}\n", id_)
    [kept] = api.services.unread.page(limit=1)
    page = operator.get("/unknown")
    assert f"/notifications/{id_}".encode() in page.body
    assert f"/unread/{kept.id}".encode() not in page.body
    assert operator.get(f"/unread/{kept.id}").status == 403
    admin = Browser(api)
    admin.sign_in(api.key(Scope.ADMIN, producer=None))
    assert f"/unread/{kept.id}".encode() in admin.get("/unknown").body
    page = admin.get(f"/unread/{kept.id}")
    assert b"Call me." in page.body
    assert b"<script>alert" not in page.body
    sent.bounce("From: Bo <bo@example.net>\nTo: {to}\nSubject: Re: Your order\n\nWrite to me.\n", id_)
    monkeypatch.setattr(unknown, "UNREAD_SHOWN", 1)
    newer = admin.get("/unknown").body.decode()
    assert str(kept.id) not in newer
    place = newer.partition("unread_after=")[2].partition("#")[0]
    assert f"/unread/{kept.id}".encode() in admin.get("/unknown", unread_after=place).body


def test_a_producers_key_decides_nothing(api: Api) -> None:
    browser = Browser(api)
    browser.sign_in(api.key(Scope.READ, Scope.SEND))
    browser.get("/search")
    assert browser.get("/unknown").status == 403
    assert browser.post("/unknown/resolve", resolution="sent", template="hello").status == 403
    assert browser.post("/held/end", apply="true", reason="x").status == 403
