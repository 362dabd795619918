"""The console over HTTP: who gets in, what they see and may do. What strangers wrote never becomes markup."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import structlog
from fastapi import APIRouter, Response
from sqlalchemy import text
from structlog.testing import LogCapture

from notifier.config import logs
from notifier.console.pages import STATIC, Pages
from notifier.console.routes.session import MAX_FORM_BYTES
from notifier.console.session import PageRoute, ReaderThere
from notifier.operations.api_keys import Scope
from notifier.store.engine import transaction
from tests.support.api import Api
from tests.support.console import XSS, Browser, api, fail, operator, send  # noqa: F401 - fixtures among them


def test_who_is_not_signed_in_is_asked_to_and_comes_back(api: Api) -> None:
    reply = Browser(api).get("/search", status="failed")
    assert (reply.status, reply.headers["location"]) == (303, "/sign-in?next=/search%3Fstatus%3Dfailed")
    browser = Browser(api)
    key = api.key(Scope.OPERATE, producer=None)
    assert browser.sign_in(key, "/search?status=failed").headers["location"] == "/search?status=failed"
    assert browser.sign_in(key, "//evil.example.com/").headers["location"] == "/"
    assert browser.get("/").status == 200
    assert browser.get("/search/").status == 404


def test_a_session_is_safe_from_scripts_and_ends_with_its_key(api: Api, operator: Browser) -> None:
    key = api.key(Scope.OPERATE, producer=None)
    browser = Browser(api)
    cookie = browser.sign_in(key).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    page = browser.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    api.parts.keys.revoke(key.split("_")[2], operator="ann")
    assert browser.get("/").status == 303
    assert operator.post("/sign-out").status == 303
    assert operator.get("/").status == 303


def test_who_signs_in_again_ends_the_session_before(api: Api) -> None:
    browser, before = Browser(api), Browser(api)
    key = api.key(Scope.OPERATE, producer=None)
    browser.sign_in(key)
    before.cookie = browser.cookie
    browser.sign_in(key)
    assert (browser.get("/").status, before.get("/").status) == (200, 303)


def test_what_goes_wrong_is_a_page_with_a_way_back(
    api: Api, operator: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = APIRouter(route_class=PageRoute)

    @broken.get("/broken/{what}")
    def fail_at(_: ReaderThere, what: str) -> Response:
        raise OverflowError(what)

    api.app.include_router(broken, include_in_schema=False)
    # In a process that has configured its logs, `capture_logs` would see nothing.
    logged = LogCapture()
    monkeypatch.setattr(logs, "log", structlog.wrap_logger(None, processors=[logged]))
    page = operator.get("/broken/ann@example.com")
    assert (page.status, b'href="/search"' in page.body) == (500, True)
    part = api("GET", "/broken/x", headers={"hx-request": "true", "cookie": operator.cookie})
    assert (part.status, b"<html" in part.body, b"Something went wrong here" in part.body) == (500, False, True)
    line = next(one for one in logged.entries if one["event"] == "api.failed")
    assert (line["method"], line["route"]) == ("GET", "/broken/{what}")
    assert "ann" not in str(logged.entries)
    large = {"content-length": str(10**9), "accept": "text/html", "cookie": operator.cookie}
    asked = {"accept": "text/html,*/*;q=0.8", "cookie": operator.cookie}
    for reply in (
        api("GET", "/nothing", headers=asked),
        api("GET", "/notifications/xyz", headers=asked),
        api("POST", "/search", headers=large),
    ):
        assert reply.status in (404, 413)
        assert b'href="/search"' in reply.body
    for path, headers in (("/nothing", {}), ("/v1/nothing", asked), ("/v1/stats", asked)):
        assert api("GET", path, headers=headers).headers["content-type"] == "application/problem+json"


def test_everything_it_answers_has_the_headers_of_pages(api: Api, operator: Browser) -> None:
    for path, query in (("/search", {"export": "csv"}), ("/log", {"export": "jsonl"}), ("/health/rates", {})):
        headers = operator.get(path, **query).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert "default-src 'none'" in headers["content-security-policy"]


def test_a_wrong_key_is_refused_in_words(api: Api) -> None:
    for wrong in ("", "ntf_live_x", "ntf_live_000000000000_" + "0" * 64, api.key(Scope.SEND)):
        reply = Browser(api).sign_in(wrong)
        assert reply.status == 403
        assert b"This key is not valid" in reply.body


def test_of_a_large_form_to_sign_in_nothing_is_parsed(api: Api) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "text/html"}
    reply = api("POST", "/sign-in", body=b"&" * (MAX_FORM_BYTES + 1), headers=headers)
    assert reply.status == 413
    assert b"larger than any of ours" in reply.body
    # The longest key and page, each of their characters encoded.
    longest = urlencode({"key": "k" * 200, "next": "/" + "\U0001f600" * 1999}).encode()
    assert api("POST", "/sign-in", body=longest, headers=headers).status == 403


def test_the_box_understands_what_people_have_at_hand(api: Api, operator: Browser) -> None:
    one = send(api, reference="order-1007")
    for typed in (one, one[:13]):
        assert operator.post("/search", typed=typed).headers["location"] == f"/notifications/{one}"
    assert operator.post("/search", typed="order-1007").headers["location"] == "/search?reference=order-1007"
    listed = operator.post("/search", typed="  Ann@Example.com ").headers["location"]
    assert "ann" not in listed.lower()
    page = operator.get("/search", to=listed.partition("to=")[2].replace("%2C", ","))
    assert one.encode() in page.body
    assert operator.post("/search", typed="").status == 422


def test_the_box_tells_a_producers_key_nothing_of_others(api: Api) -> None:
    """Nor of its own producer's messages that the key may not read."""
    theirs = [send(api, producer="bank"), send(api, producer="bank")]
    columns = "id_space, provider_message_id, notification_id, attempt, proof"
    with transaction(api.services.engine) as connection:
        row = "'x', 'SM01', CAST(:id AS uuid), 1, 'answer'"
        connection.execute(text(f"INSERT INTO provider_messages ({columns}) VALUES ({row})"), {"id": theirs[0]})
    browser, blind = Browser(api), Browser(api)
    browser.sign_in(api.key(Scope.READ))
    blind.sign_in(api.key(Scope.READ, producer="bank", templates=("login_*",)))
    for visitor in (browser, blind):
        visitor.get("/search")
        for typed in (theirs[0], theirs[0][:13], theirs[0][:9], "SM01"):
            assert visitor.post("/search", typed=typed).headers["location"] == f"/search?reference={typed}"
    ours = send(api)
    assert browser.post("/search", typed=ours[:13]).headers["location"] == f"/notifications/{ours}"


def test_a_number_never_becomes_a_part_of_an_address(api: Api, operator: Browser) -> None:
    number, address = (operator.post("/search", typed=one) for one in ("+15550100123", "ann@example.com"))
    for typed in ("+1 (555) 010-0123", "＋１５５５０１００１２３", "tel:+1-555-010-0123", "+١٥٥٥٠١٠٠١٢٣"):
        assert operator.post("/search", typed=typed).headers["location"] == number.headers["location"]
    for typed in ("mailto:ann@example.com?subject=x", "ann(at)example.com", "ann%40example.com"):
        assert operator.post("/search", typed=typed).headers["location"] == address.headers["location"]
    asked = ("0015550100123", "(555) 010-0123", "00155501", "٠١٢٣٤٥٦٧٨٩")
    for typed in (*asked, "x 15550100123", "15550100123a", "+1-555-010-0123 x"):
        page = operator.post("/search", typed=typed)
        assert (page.status, "location" in page.headers) == (200, False)
        assert b"with + and the country" in page.body
    assert operator.post("/search", typed="+1555").status == 422
    for typed in ("INV-1234567", "order 2026-11-30"):
        assert operator.post("/search", typed=typed).headers["location"].startswith("/search?reference=")


def test_a_filter_narrows_the_list_and_the_file(api: Api, operator: Browser) -> None:
    good, bad = send(api), send(api)
    fail(api, bad)
    page = operator.get("/search", status="failed", reason="", since="2000-01-01")
    assert (good.encode() in page.body, bad.encode() in page.body) == (False, True)
    file = operator.get("/search", status="failed", export="csv")
    assert file.headers["content-type"].startswith("text/csv")
    assert (good.encode() in file.body, bad.encode() in file.body) == (False, True)
    assert operator.get("/search", since="tomorrow").status == 422
    assert operator.get("/search", to="0").status == 422
    assert operator.get("/search", to="").status == 200


def test_a_day_that_nobody_means_is_named(api: Api, operator: Browser) -> None:
    late, early = "9999-12-31", "0001-01-01T00:00:00Z"
    for path, more in (("/search", {}), ("/search", {"export": "csv"}), ("/failed/retry", {})):
        page = operator.get(path, until=late, **more)
        assert (page.status, b"To day" in page.body) == (422, True)
    for begin in (early, "9999-12-31T23:59:59Z", "3000-01-01T00:00:00Z"):
        assert operator.get("/failed/retry", begin=begin).status == 422
    assert operator.get("/failed/retry", begin="2999-12-31T23:59:59Z").status == 200
    assert operator.get("/log", day=late).status == 422
    assert operator.get("/search", since="2026-02-02", until="2026-02-01").status == 422
    assert operator.post("/failed/retry", status="failed", until=late).status == 422
    assert operator.post("/suppressions/add", address="ann@example.com", last_day=late).status == 422
    api.app.state.console = replace(api.app.state.console, pages=Pages(ZoneInfo("Asia/Shanghai")))
    one = send(api, expires_at="9999-12-31T23:59:59Z")
    assert b"9999-12-31 23:59:59" in operator.get(f"/notifications/{one}").body
    key = api.key(Scope.READ, Scope.OPERATE)
    assert api("GET", "/v1/stats", key=key, until=early).status == 422
    for path in ("/v1/notifications", "/v1/suppressions"):
        assert api("GET", path, key=key, since="9999-12-31T23:59:59Z").status == 422


def test_an_operator_retries_after_a_dry_run(api: Api, operator: Browser) -> None:
    one = send(api)
    fail(api, one)
    assert b"Retry" in operator.get(f"/notifications/{one}").body
    dry = operator.post(f"/notifications/{one}/retry", dry_run="true")
    assert b"It would be retried." in dry.body
    assert api.services.audit.story(UUID(one)).notification.status == "failed"
    done = operator.post(f"/notifications/{one}/retry", reason="the relay is back")
    assert b"It is retried." in done.body
    assert b"the relay is back" in operator.get(f"/notifications/{one}").body
    assert api.services.audit.story(UUID(one)).notification.status == "retrying"
    again = operator.post(f"/notifications/{one}/retry")
    assert again.status == 422


def test_a_form_of_another_site_or_session_is_refused(api: Api, operator: Browser) -> None:
    one = send(api)
    assert b": it is given to the broker again" in operator.get(f"/notifications/{one}").body
    path = f"/notifications/{one}/cancel"
    key = urlencode({"key": api.key(Scope.OPERATE, producer=None)}).encode()
    for sent in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example.com"}, {"origin": "null"}):
        assert operator.post(path, {"host": "notify.example.com", **sent}).status == 403
        form = {"content-type": "application/x-www-form-urlencoded", "host": "notify.example.com", **sent}
        assert api("POST", "/sign-in", body=key, headers=form).status == 403
    ours = {"host": "notify.example.com", "origin": "https://notify.example.com"}
    assert operator.post(f"/notifications/{one}/retry", ours).status == 422
    operator.form_token = "0" * 64
    assert operator.post(path).status == 403
    operator.form_token = "é"
    assert operator.post(path).status == 403
    assert api.services.audit.story(UUID(one)).notification.status == "queued"


def test_a_producers_key_sees_its_own_and_may_not_act(api: Api) -> None:
    ours, theirs = send(api), send(api, producer="bank")
    fail(api, ours)
    browser = Browser(api)
    browser.sign_in(api.key(Scope.READ))
    assert b"Messages of shop" in browser.get("/").body
    page = browser.get("/search")
    assert (ours.encode() in page.body, theirs.encode() in page.body) == (True, False)
    assert browser.get("/search", producer="bank").status == 403
    assert browser.get(f"/notifications/{theirs}").status == 404
    assert b"What you can do" not in browser.get(f"/notifications/{ours}").body
    assert browser.post(f"/notifications/{ours}/retry").status == 403
    assert browser.get("/health/now").status == 403
    assert browser.post("/providers/smtp/pause").status == 403


def test_nothing_that_strangers_wrote_becomes_markup(api: Api, operator: Browser) -> None:
    one = send(
        api,
        reference=XSS,
        metadata={"note": XSS, XSS[:20]: "x"},
        to='"<script>alert(1)</script>" <ann@example.com>',
    )
    fail(api, one, detail=XSS)
    for page in (
        operator.get(f"/notifications/{one}"),
        operator.get("/search", reference=XSS),
        operator.get("/search", producer=XSS),
        operator.post("/search", typed=XSS),
        operator.get("/"),
    ):
        assert b"<script>alert" not in page.body
        assert "script-src 'self'" in page.headers.get("content-security-policy", "script-src 'self'")


def test_assets_are_ours_and_kept(api: Api, operator: Browser) -> None:
    page = operator.get("/").body.decode()
    for path in set(re.findall(r'(?:href|src)="(/static/[^"#]+)', page)):
        reply = api("GET", path.partition("?")[0])
        assert reply.status == 200
        assert "immutable" in reply.headers["cache-control"]
    packed = api("GET", "/static/tabler.min.css", headers={"accept-encoding": "gzip"})
    assert gzip.decompress(packed.body) == (STATIC / "tabler.min.css").read_bytes()
    assert "http" not in "".join(re.findall(r'(?:href|src)="([^"]+)"', page))
