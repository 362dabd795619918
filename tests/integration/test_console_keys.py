"""The console's pages of API keys: for admins alone, and a key is shown once."""

from __future__ import annotations

import re

import pytest

from notifier.operations.api_keys import Scope
from tests.support.api import Api
from tests.support.console import XSS, Browser, api, operator  # noqa: F401


@pytest.fixture
def admin(api: Api) -> Browser:
    browser = Browser(api)
    browser.sign_in(api.key(Scope.ADMIN, producer=None))
    browser.get("/keys")
    return browser


def token_in(body: bytes) -> str:
    found = re.search(rb'value="(ntf_(?:live|test)_[0-9a-f_]+)"', body)
    assert found is not None
    return found[1].decode()


def test_a_key_is_made_shown_once_rotated_and_revoked(api: Api, admin: Browser) -> None:
    made = admin.post("/keys", name="", producer="shop", scopes="send", templates="order_*, hello", rate="")
    token = token_in(made.body)
    key = token.split("_")[2]
    assert token.encode() not in admin.get("/keys").body
    page = admin.get(f"/keys/{key}")
    assert b"order_*, hello" in page.body
    assert b"never used" in page.body
    assert api.parts.keys.holder(token) is not None
    rotated = token_in(admin.post(f"/keys/{key}/rotate", hours="0").body)
    assert api.parts.keys.holder(token) is None
    plan = {"name": "digest", "cron": "0 9 * * *", "zone": "UTC", "channel": "email", "template": "hello"}
    line = {"to": "ann@example.com", "context": {"name": "Ann"}}
    added = api("POST", "/v1/recurring", key=rotated, json_body={**plan, "recipients": [line]})
    done = admin.post(f"/keys/{rotated.split('_')[2]}/revoke", reason="the shop closed")
    assert b"It is revoked" in done.body
    assert (
        f'<a href="/recurring/{added.json["id"]}">digest</a>, made or changed with this key'.encode() in done.body
    )
    assert api.parts.keys.holder(rotated) is None
    assert admin.get(f"/keys/{'0' * 12}").status == 404


def test_a_form_comes_back_with_what_was_typed_and_what_is_wrong(api: Api, admin: Browser) -> None:
    page = admin.post("/keys", name=XSS, scopes="operate", rate="-1", last_day="9999-12-31")
    assert page.status == 422
    assert b"<script>alert" not in page.body
    text = page.body.decode()
    assert 'value="operate" checked' in text
    assert 'value="-1" aria-describedby="fault-rate" aria-invalid="true"' in text
    assert '<div class="field-fault" id="fault-last_day">Write a day from 1970 to 2999.</div>' in text
    nothing = admin.post("/keys", producer="shop")
    assert (nothing.status, b"The key may do nothing" in nothing.body) == (422, True)
    key = api.key(Scope.READ).split("_")[2]
    assert b"Hours until the old key ends" in admin.post(f"/keys/{key}/rotate", hours="-1").body
    # Where there is no such page, the nearest above it.
    assert b"valid keys" in admin.post(f"/keys/{'0' * 12}/rotate", hours="-1").body


def test_names_of_keys_are_no_markup(api: Api, admin: Browser) -> None:
    made = admin.post("/keys", name=XSS, scopes="operate")
    assert made.status == 200
    assert b"<script>alert" not in made.body + admin.get(f"/keys/{token_in(made.body).split('_')[2]}").body


def test_operators_and_producers_see_no_keys(api: Api, operator: Browser) -> None:
    producer = Browser(api)
    producer.sign_in(api.key(Scope.READ))
    for browser in (operator, producer):
        browser.get("/search")
        assert browser.get("/keys").status == 403
        for path in ("/keys", f"/keys/{'0' * 12}/rotate", f"/keys/{'0' * 12}/revoke"):
            assert browser.post(path, name="x", scopes="admin").status == 403
