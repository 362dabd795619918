"""What people do at the console, in a real browser; and that nobody is kept out by sight, hand or screen."""

from __future__ import annotations

import csv
import re
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from pydantic import SecretStr

from notifier.config.console import SignInTable
from notifier.config.identity_provider import OidcClient
from notifier.console.pages import MENU
from notifier.dev.server_thread import running
from notifier.operations.api_keys import Scope
from notifier.operations.id_tokens import OidcSignIn
from notifier.operations.sign_in import SignIn
from notifier.store.console_sessions import ConsoleSessionRepository
from tests.browser.conftest import IN_MARCH, Desk
from tests.profiles import is_full
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider
from tests.support.templates import write_template

if TYPE_CHECKING:
    from playwright.sync_api import Page

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text()
HOSTILE = """
<script>top.document.title = "taken"; fetch("ELSEWHERE")</script>
<meta http-equiv="refresh" content="0; url=ELSEWHERE">
<img src="ELSEWHERE" onerror="top.document.title = 'taken'"><link rel="stylesheet" href="ELSEWHERE">
<style>body { background: url(ELSEWHERE) }</style><iframe src="ELSEWHERE"></iframe>
<a href="ELSEWHERE" target="_top">A prize</a>
"""
#: What axe-core calls grave.
GRAVE = ("serious", "critical")
PHONE, DESK = 390, 1280
#: As far as the full profile does not look at all of them: pages with most of the colours, and those of a mail.
#: All have one style sheet, and to judge the colours of a page takes as long as everything else on it.
COLOURFUL = ("/sign-in", "/", "/schedules", "/templates/email/receipt")


def test_an_operator_finds_what_failed_and_retries_it(desk: Desk) -> None:
    with desk.page(desk.key(Scope.OPERATE)) as page:
        page.get_by_label("Search").fill("order-1007")
        page.keyboard.press("Enter")
        page.locator("tbody a").click()
        assert "the relay is closed" in page.inner_text("main")
        mail = page.frame_locator("iframe[name=mail]")
        mail.locator("text=••••••").first.wait_for()
        page.get_by_text("Retry", exact=True).first.click()
        page.get_by_label("Why").first.fill("the relay is open again")
        page.get_by_role("button", name="Dry run").first.click()
        page.get_by_text("It would be retried.").wait_for()
        page.get_by_role("button", name="Retry").click()
        page.get_by_text("It is retried.").wait_for()
    assert desk.api.services.audit.story(UUID(desk.failed)).notification.status == "retrying"
    assert desk.complaints == []


def test_an_auditor_finds_all_of_march_and_takes_it_along(desk: Desk, tmp_path: Path) -> None:
    with desk.page(desk.key(Scope.READ, "shop")) as page:
        page.get_by_role("link", name="Notifications").click()
        page.get_by_label("From day").fill(desk.march[0])
        page.get_by_label("To day").fill(desk.march[1])
        page.get_by_role("button", name="Filter").click()
        page.get_by_role("link", name="Older ones").wait_for()
        with page.expect_download() as file:
            page.get_by_role("link", name="Export CSV").click()
        file.value.save_as(tmp_path / "march.csv")
    with (tmp_path / "march.csv").open() as rows:
        assert [row["reference"] for row in csv.DictReader(rows)] == ["in-march"] * IN_MARCH
    assert desk.complaints == []


@pytest.fixture
def provider(desk: Desk) -> Iterator[OidcProvider]:
    """People of the console are sent to it meanwhile."""
    state, keys = desk.api.app.state, desk.api.parts.keys
    before, sessions = state.console, ConsoleSessionRepository(desk.api.services.engine)
    with running(OidcProvider()) as provider:
        roles, secret = SignInTable(operate=("ops",)), SecretStr(CLIENT_SECRET)
        oidc = OidcSignIn(OidcClient(provider.issuer, CLIENT_ID, secret, desk.url, roles))
        state.console = replace(before, oidc=oidc, sign_in=SignIn(sessions, keys, has_identity_provider=True))
        yield provider
        state.console = before


def test_a_person_comes_by_the_identity_provider(desk: Desk, provider: OidcProvider) -> None:
    """The cookie comes along over the provider's site, and no policy of ours stops the way."""
    with desk.page() as page:
        page.goto(f"{desk.url}/suppressions")
        page.get_by_role("link", name="Sign in at 127.0.0.1").click()
        page.wait_for_url(f"{desk.url}/suppressions")
        page.get_by_text("mona@example.com", exact=True).wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{desk.url}/sign-in")
        page.goto(f"{desk.url}/suppressions")
        assert urlsplit(page.url).path == "/sign-in"
    called, desk.complaints = desk.complaints, []
    assert {line.partition("?")[0] for line in called} == {f"called {provider.issuer}/authorize"}


def test_support_suppresses_who_wants_no_more(desk: Desk) -> None:
    with desk.page(desk.key(Scope.OPERATE)) as page:
        page.get_by_label("Search").fill("+1 555 0100123")
        page.keyboard.press("Enter")
        page.locator("tbody a").click()
        page.locator("summary", has_text="Suppress the recipient").click()
        page.locator("#why-suppress").fill("asked on the phone")
        page.get_by_role("button", name="Suppress the recipient").click()
        page.get_by_text("Nothing more is sent to them.").wait_for()
        assert "5550100123" not in page.url
    assert desk.complaints == []


def test_a_preview_follows_what_is_typed(desk: Desk) -> None:
    with desk.page(desk.key(Scope.READ, "shop")) as page:
        page.goto(f"{desk.url}/templates/email/password_reset")
        for width in (600, 360):
            for theme in ("light", "dark"):
                page.frame_locator(f"iframe[name=mail-{theme}-{width}]").locator("h1").wait_for()
        page.get_by_label("Variables, as JSON").fill(
            '{"reset_url": "https://example.com/a", "valid_minutes": "x"}'
        )
        page.get_by_text("context.valid_minutes").wait_for()
        page.get_by_label("Variables, as JSON").fill('{"reset_url": "https://example.com/a", "valid_minutes": 7}')
        page.get_by_label("Language").select_option("fr")
        page.frame_locator("iframe[name=mail-light-600]").locator(
            "a[href='https://example.com/a']"
        ).first.wait_for()
    assert desk.complaints == []


def test_nothing_in_a_mail_runs_loads_or_leaves_its_frame(desk: Desk) -> None:
    write_template(desk.templates, "hostile", "")
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        address = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"
        (desk.templates / "email" / "hostile" / "body.html").write_text(HOSTILE.replace("ELSEWHERE", address))
        with desk.page(desk.key(Scope.OPERATE)) as page:
            page.goto(f"{desk.url}/templates/email/hostile")
            mail = page.frame_locator("iframe[name=mail-light-600]")
            mail.get_by_role("link", name="A prize").click()
            page.wait_for_load_state("networkidle")
            assert page.title() == "hostile · notifier"
            assert page.url == f"{desk.url}/templates/email/hostile"
            assert _asked_of(elsewhere) == b""
    # The browser says what it refused.
    refused, desk.complaints = desk.complaints, []
    assert any("Content Security Policy" in line for line in refused)


def test_every_page_is_for_everybody(desk: Desk) -> None:
    """In both themes, on a desk and on a phone, without a mouse."""
    paths = [item.path for item in MENU]
    paths += [f"/notifications/{desk.failed}", f"/notifications/{desk.sms}", "/search?reference=none"]
    paths += [f"/search?until={desk.march[0][:8]}08"]
    paths += ["/templates/email/receipt", f"/notifications/{UUID(int=0)}"]
    found: dict[str, list[str]] = {}
    with desk.page() as page:
        found["/sign-in"] = _barriers(page)
    with desk.page(desk.key(Scope.ADMIN)) as page:
        for path in _with_linked(page, desk.url, paths):
            found[path] = _barriers(page)
        page.set_viewport_size({"width": DESK, "height": 900})
        page.goto(f"{desk.url}/notifications/{desk.failed}")
        reached = _reached_by_tab(page)
        page.set_viewport_size({"width": PHONE, "height": 900})
        page.get_by_label("Menu").focus()
        page.keyboard.press("Enter")
        page.get_by_role("link", name=MENU[-1].title).wait_for()
    barriers = [f"{path} {barrier}" for path, found_there in found.items() for barrier in found_there]
    assert not barriers, "\n".join(barriers)
    for name in ("Skip to the content", "box", *(item.title for item in MENU), "Suppress the recipient"):
        assert name in reached
    assert desk.complaints == []


def _with_linked(page: Page, url: str, paths: list[str]) -> Iterator[str]:
    """Opens each, and one of each kind that they lead to; gives their paths."""
    kinds, waiting = set[str](), deque(paths)
    while waiting:
        path = waiting.popleft()
        kind = _kind_of(path)
        if kind in kinds:
            continue
        kinds.add(kind)
        page.goto(url + path)
        yield path
        links = page.evaluate("[...document.querySelectorAll('main a')].map((a) => a.getAttribute('href'))")
        waiting += [
            link for link in links if link.startswith("/") and "export" not in link and "/html" not in link
        ]


def _kind_of(path: str) -> str:
    """Without what it is asked for; in the quick profile without whether by this or that."""
    pattern = r"[0-9a-f]{8}[0-9a-f-]{4,}|=[^&]*|(?<=/sms/).*|(?<=/templates/email/).*"
    return re.sub(pattern if is_full() else rf"{pattern}|(?<=\?).*", "*", path)


def _asked_of(listener: socket.socket) -> bytes:
    """What clients said; Chromium connects to where it then refuses to go, and says nothing."""
    listener.setblocking(False)
    said = b""
    with suppress(BlockingIOError):
        while True:
            client, _ = listener.accept()
            with client, suppress(BlockingIOError):
                client.setblocking(False)
                said += client.recv(1000)
    return said


def _barriers(page: Page) -> list[str]:
    """What is grave by axe-core; and what has to be scrolled to the side."""
    barriers = []
    # Structure, names and labels are the same on both widths.
    has_colours = is_full() or urlsplit(page.url).path in COLOURFUL
    views = [(PHONE, "light")]
    views += [(DESK, "light")] if is_full() else []
    views += [(DESK, "dark")] if has_colours else []
    for width, theme in views:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        # In the other theme the colours alone differ.
        found = _violations(page, colours=has_colours, others=theme == "light")
        barriers += [f"{width} {theme}: {one}" for one in found]
        too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        barriers += [f"{width}: {too_wide} px too wide"] if too_wide > 0 else []
    page.emulate_media(color_scheme="light")
    return barriers


def _violations(page: Page, *, colours: bool, others: bool) -> list[str]:
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    options: dict[str, Any] = {"resultTypes": ["violations"], "iframes": False}
    if not others:
        options["runOnly"] = {"type": "rule", "values": ["color-contrast"]}
    elif not colours:
        options["rules"] = {"color-contrast": {"enabled": False}}
    result = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{one['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
        for one in result["violations"]
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]


def _reached_by_tab(page: Page) -> set[str]:
    """Names of what has the focus, until it is back at the beginning of the page."""
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        name = page.evaluate("(document.activeElement.id || document.activeElement.innerText || '').trim()")
        reached.add(name)
        if _is_left(page):
            break
    return reached


def _is_left(page: Page) -> bool:
    """Whether the focus went to the browser's own parts."""
    return bool(page.evaluate("document.activeElement === document.body"))
