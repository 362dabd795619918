"""The console with an identity provider: people go there and come back, act under their own name, and leave."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import SecretStr

from notifier.api.timeouts import ClientTimeouts
from notifier.config.console import SignInTable
from notifier.config.identity_provider import OidcClient
from notifier.console.app import add_console
from notifier.console.sign_in_flow import MAX_SECONDS, MOST_FLOWS, SignInFlow
from notifier.dev.server_thread import running
from notifier.operations.api_keys import Scope
from notifier.operations.id_tokens import OidcSignIn
from notifier.operations.identity_provider import MOST_REQUESTS, IdentityProvider
from notifier.operations.sign_in import SignIn
from notifier.store.console_sessions import ConsoleSessionRepository
from tests.support.api import Api, Reply, call, idle_connections, served
from tests.support.console import XSS, Browser, fail, send
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, SilentProvider, sent_back
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until

CONSOLE = "https://console.example.com"
CALLBACK = "/sign-in/oidc/callback"


@pytest.fixture(scope="module")
def running_provider() -> Iterator[OidcProvider]:
    with running(OidcProvider()) as provider:
        yield provider


@pytest.fixture
def provider(running_provider: OidcProvider) -> OidcProvider:
    running_provider.reset()
    return running_provider


@pytest.fixture
def api(database_url: str, tmp_path: Path, provider: OidcProvider) -> Iterator[Api]:
    roles = {"read": ["audit"], "operate": ["ops"], "admin": ["platform"]}
    api = Api(
        database_url,
        write_templates(tmp_path),
        structure={"console": {"sign_in": {"console_url": CONSOLE, **roles}}},
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
    )
    add_console(api.app, api.services, api.parts)
    yield api
    api.close()


class Visit:
    """A browser on its way to the provider and back."""

    def __init__(self, api: Api, target: str = "/search", cookies: str = "") -> None:
        self._api = api
        headers = {"x-forwarded-proto": "https", "cookie": cookies}
        begun = api("GET", "/sign-in/oidc", next=target, headers=headers)
        assert begun.status == 303, begun.body
        self.address = begun.headers["location"]
        *self.pushed_out, self.cookie = begun.headers["set-cookie"].split("\n")
        #: As a browser sends it.
        self.sent = self.cookie.partition(";")[0]
        #: What the provider sends back with the browser.
        self.answer: dict[str, str] = {}

    def sign_in(self) -> Visit:
        back = urlsplit(sent_back(self.address))
        assert f"{back.scheme}://{back.netloc}{back.path}" == CONSOLE + CALLBACK
        self.answer = dict(parse_qsl(back.query))
        return self

    def come_back(self, cookie: str | None = None, **changed: str) -> Reply:
        sent = self.sent if cookie is None else cookie
        query: dict[str, Any] = {**self.answer, **changed}
        return self._api("GET", CALLBACK, headers={"cookie": sent}, **query)


def browser_of(api: Api, reply: Reply) -> Browser:
    """The browser that was let in."""
    assert reply.status == 303, reply.body
    browser = Browser(api)
    browser.keep_cookie(reply)
    browser.get("/search")
    return browser


def test_a_person_signs_in_acts_under_their_name_and_leaves(
    api: Api, provider: OidcProvider, capfd: pytest.CaptureFixture[str]
) -> None:
    page = Browser(api).get("/sign-in", next="/search?status=failed")
    assert f'href="{CONSOLE}/sign-in/oidc?next=/search%3Fstatus%3Dfailed"'.encode() in page.body
    assert b"Or with a key" in page.body
    provider.claims["groups"] = ["platform", "others"]
    visit = Visit(api, "/search?status=failed")
    for said in ("HttpOnly", "SameSite=lax", "Secure", "Path=/sign-in/oidc"):
        assert said in visit.cookie
    reply = visit.sign_in().come_back()
    assert reply.headers["location"] == "/search?status=failed"
    assert f'{visit.sent.partition("=")[0]}=""' in reply.headers["set-cookie"]
    browser = browser_of(api, reply)
    assert b"mona@example.com" in browser.get("/").body
    one = send(api)
    fail(api, one)
    assert b"It is retried." in browser.post(f"/notifications/{one}/retry", reason="the relay is back").body
    made = browser.post("/keys", name="a key", scopes="operate").body
    assert b"ntf_live_" in made
    log = [json.loads(line) for line in browser.get("/log", export="jsonl", operator="mona@").body.splitlines()]
    assert {(row["action"], row["operator"]) for row in log} == {
        ("retry", "mona@example.com (OIDC)"),
        ("create_key", "mona@example.com (OIDC)"),
    }
    assert b"mona@example.com (OIDC)" in browser.get(f"/notifications/{one}").body
    assert browser.get("/search", export="csv").status == 200
    assert browser.post("/sign-out").status == 303
    assert browser.get("/search").status == 303
    # What was good once is good no more, and nothing of it is in the logs.
    again = visit.come_back()
    assert (again.status, b"was used already" in again.body) == (403, True)
    logged = "".join(capfd.readouterr())
    for secret in (visit.answer["code"], visit.answer["state"], CLIENT_SECRET, "mona@"):
        assert secret not in logged


def test_who_reads_sees_everything_and_changes_nothing(api: Api, provider: OidcProvider) -> None:
    provider.claims |= {"groups": "audit", "email": XSS}
    one, other = send(api), send(api, producer="bank")
    browser = browser_of(api, Visit(api).sign_in().come_back())
    first = browser.get("/")
    assert b"Every message" in first.body
    assert b"<script>alert" not in first.body
    page = browser.get("/search").body
    assert one.encode() in page
    assert other.encode() in page
    assert browser.get(f"/notifications/{other}").status == 200
    assert browser.get("/templates").status == 200
    assert browser.get("/recurring").status == 200
    refused = browser.post(f"/notifications/{one}/cancel")
    assert (refused.status, b"This needs the role" in refused.body) == (403, True)
    for hidden in ("/keys", "/log", "/failed"):
        assert browser.get(hidden).status == 403
    token = browser.cookie.partition("=")[2]
    sessions = ConsoleSessionRepository(api.services.engine)
    assert SignIn(sessions, api.parts.keys, has_identity_provider=True).visitor(token) is not None
    assert SignIn(sessions, api.parts.keys).visitor(token) is None


def test_only_the_browser_that_began_comes_in_and_in_time(api: Api, provider: OidcProvider) -> None:
    given = provider.tokens_given
    visit, other = Visit(api).sign_in(), Visit(api)
    flow = SignInFlow.read(visit.sent.partition("=")[2])
    assert flow is not None
    late = SignInFlow(flow.secret, int(time.time()) - MAX_SECONDS - 1, flow.target)
    turned = SignInFlow(flow.secret, flow.begun, "/keys")
    for reply in (
        visit.come_back(cookie=""),
        visit.come_back(cookie=f"{flow.cookie_name}=x.y.z"),
        visit.come_back(cookie=other.sent),
        visit.come_back(cookie=f"{flow.cookie_name}={other.sent.partition('=')[2]}"),
        visit.come_back(state="é"),
        visit.come_back(state=""),
        visit.come_back(cookie=f"{late.cookie_name}={late.cookie}", state=late.state),
        visit.come_back(cookie=f"{flow.cookie_name}={turned.cookie}"),
    ):
        assert reply.status == 403
        assert f"Open {CONSOLE}".encode() in reply.body
        # Whoever makes a browser ask for this ends no sign-in that is under way.
        assert "set-cookie" not in reply.headers
    # None of them got as far as the provider.
    assert provider.tokens_given == given
    assert visit.come_back(iss="https://other.example.com").status == 403
    assert provider.tokens_given == given
    assert visit.come_back().status == 303


def test_two_tabs_sign_in_each_by_itself_and_the_oldest_of_many_go(api: Api) -> None:
    first = Visit(api, "/keys")
    second = Visit(api, "/jobs", cookies=first.sent)
    both = f"{first.sent}; {second.sent}"
    back = first.sign_in().come_back(cookie=both)
    assert (back.status, back.headers["location"]) == (303, "/keys")
    assert second.sent.partition("=")[0] not in back.headers["set-cookie"]
    assert second.sign_in().come_back(cookie=second.sent).headers["location"] == "/jobs"
    now = int(time.time())
    flows = [SignInFlow.begin("/")] + [SignInFlow(f"{age:043}", now - age, "/") for age in range(9, 0, -1)]
    sent = "; ".join(f"{flow.cookie_name}={flow.cookie}" for flow in flows)
    gone = {cookie.partition("=")[0] for cookie in Visit(api, cookies=sent).pushed_out}
    assert gone == {flow.cookie_name for flow in flows[1 : len(flows) - MOST_FLOWS + 2]}


def test_what_goes_wrong_is_said_and_a_key_still_works(api: Api, provider: OidcProvider) -> None:
    visit = Visit(api)
    state = dict(parse_qsl(urlsplit(visit.address).query))["state"]
    for error, said in (
        ("access_denied", b"did not let you in, or you cancelled"),
        ("server_error", b"refused: server error."),
        (XSS, b"refused: no code."),
    ):
        reply = visit.come_back(state=state, error=error, error_description=XSS)
        assert reply.status == 403
        assert said in reply.body
        assert b"<script>alert" not in reply.body
    provider.claims["groups"] = [XSS]
    reply = Visit(api).sign_in().come_back()
    assert b"The claim &#39;groups&#39; was read, and none of your groups in it has one." in reply.body
    assert b"[console.sign_in]" in reply.body
    key = api.key(Scope.OPERATE, producer=None)
    assert Browser(api).sign_in(key, "/search").status == 303


def test_a_provider_that_is_away_is_said_so(api: Api) -> None:
    ask(api, "http://127.0.0.1:1")
    reply = Browser(api).get("/sign-in/oidc", next="//evil.example.com/")
    assert reply.status == 503
    assert b"The identity provider does not answer." in reply.body
    assert b'name="next" value="/"' in reply.body


def test_a_provider_that_hangs_holds_up_nobody_else(api: Api) -> None:
    with served(api.app, ClientTimeouts()) as port, running(SilentProvider()) as silent:
        ask(api, silent.issuer)
        address = f"http://127.0.0.1:{port}/sign-in"
        with idle_connections(port, 40, b"GET /sign-in/oidc HTTP/1.1\r\nHost: x\r\n\r\n"):
            wait_until(lambda: silent.asked == MOST_REQUESTS)
            assert call("GET", address).status == 200
            # So many are under way that no more is begun.
            refused = call("GET", f"{address}/oidc")
            assert (refused.status, b"Too many people sign in just now." in refused.body) == (503, True)


def ask(api: Api, issuer: str) -> None:
    """People are sent to this provider."""
    client = OidcClient(issuer, CLIENT_ID, SecretStr(CLIENT_SECRET), CONSOLE, SignInTable(operate=("ops",)))
    provider = IdentityProvider(issuer, deadline_seconds=patient(10))
    api.app.state.console = replace(api.app.state.console, oidc=OidcSignIn(client, provider))
