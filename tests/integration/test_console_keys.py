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
    done = admin.post(f"/keys/{rotated.split('_')[2]}/revoke", reason="the shop closed")
    assert b"It is revoked" in done.body
    assert api.parts.keys.holder(rotated) is None
    assert admin.post("/keys", producer="shop").status == 422  # it may do nothing
    assert admin.get(f"/keys/{'0' * 12}").status == 404


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
