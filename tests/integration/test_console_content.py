"""What a notification says, on its page: rendered again, for who may see it, without its secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from notifier.console.app import add_console
from notifier.operations.api_keys import Scope
from notifier.security.encryption import new_key
from notifier.store.engine import transaction
from tests.support.api import Api
from tests.support.console import XSS, Browser, api, operator, send  # noqa: F401 - fixtures
from tests.support.templates import write_templates


@pytest.fixture(params=["plain", "encrypted"])
def kept(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[Api]:
    """An API whose database holds people's data in plain text, and one where it is encrypted."""
    keys: dict[str, Any] = (
        {"encryption_keys": new_key("one"), "hash_key": "h" * 40} if request.param == "encrypted" else {}
    )
    api = Api(database_url, write_templates(tmp_path), **keys)
    add_console(api.app, api.services, api.parts)
    yield api
    api.close()


def test_a_mail_is_shown_and_nothing_in_it_runs(api: Api, operator: Browser) -> None:
    one = send(api, context={"name": XSS})
    page = operator.get(f"/notifications/{one}")
    assert b"Hello &#34;&#39;&gt;&lt;script&gt;" in page.body
    assert b"<script>alert" not in page.body
    assert b"frame-src 'self'" in page.headers["content-security-policy"].encode()
    frame = operator.get(f"/notifications/{one}/html", theme="dark")
    assert b"<p>Hello <b>" in frame.body
    policy = frame.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert (frame.headers["x-frame-options"], frame.headers["cache-control"]) == ("SAMEORIGIN", "no-store")


def test_secrets_are_dots_before_and_after_they_are_wiped(kept: Api) -> None:
    one = send(kept, channel="sms", to="+15550100123", template="code", context={"code": "042137"})
    operator = Browser(kept)
    operator.sign_in(kept.key(Scope.OPERATE, producer=None))
    for statement in ("SELECT 1", "UPDATE messages SET context = context - secret_names, secret_names = '{}'"):
        with transaction(kept.services.engine) as connection:
            connection.execute(text(statement))
        page = operator.get(f"/notifications/{one}").body.decode()
        assert "Your code is ••••••." in page
        assert "1 segment, GSM-7, 20 units" in page
        assert "042137" not in page


def test_what_is_gone_or_changed_says_so(api: Api, operator: Browser, tmp_path: Path) -> None:
    one = send(api)
    assert b"the template has changed since" not in operator.get(f"/notifications/{one}").body
    with transaction(api.services.engine) as connection:
        connection.execute(text("UPDATE states SET sent_version = 'older'"))
    assert b"the template has changed since" in operator.get(f"/notifications/{one}").body
    with transaction(api.services.engine) as connection:
        columns = "notification_id, number, provider, template_version"
        connection.execute(text(f"INSERT INTO attempts ({columns}) SELECT id, 1, 'smtp', 'last' FROM states"))
        connection.execute(text("UPDATE states SET attempt_count = 1"))
    assert b"the record says last." in operator.get(f"/notifications/{one}").body
    with transaction(api.services.engine) as connection:
        connection.execute(text("UPDATE messages SET recipient = NULL, address = NULL, context = NULL"))
    assert b"It was redacted" in operator.get(f"/notifications/{one}").body
    assert operator.get(f"/notifications/{one}/html").status == 404


def test_a_key_that_is_missing_and_a_context_that_does_not_fit_are_told(api: Api, operator: Browser) -> None:
    one = send(api)
    with transaction(api.services.engine) as connection:
        connection.execute(text("UPDATE messages SET context = '{}'"))
    assert b"does not render with what is kept of it: " in operator.get(f"/notifications/{one}").body
    with transaction(api.services.engine) as connection:
        connection.execute(text("UPDATE messages SET sealed = '\\x0000'"))
    assert b"It cannot be decrypted" in operator.get(f"/notifications/{one}").body


def test_a_producers_key_sees_what_its_own_messages_say(api: Api) -> None:
    ours, theirs = send(api), send(api, producer="bank")
    browser = Browser(api)
    browser.sign_in(api.key(Scope.READ))
    assert browser.get(f"/notifications/{ours}/html").status == 200
    assert browser.get(f"/notifications/{theirs}/html").status == 404
    assert api.services.audit.story(UUID(theirs)).notification.status == "queued"
