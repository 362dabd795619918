"""One Chromium and one console for the tests of this folder, with something to look at.

Everything is in the record before the browser starts: Playwright's loop runs in our thread from then on.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from sqlalchemy import text

from notifier.api.timeouts import ClientTimeouts
from notifier.console.app import add_console
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane, OnUnknown, Status
from notifier.operations.api_keys import Scope
from notifier.store.engine import transaction
from notifier.store.records import NewNotification
from notifier.store.schema.partitions import first_id
from tests.provisioning.chromium import ARGUMENTS, find_chromium
from tests.provisioning.databases import Databases
from tests.support.api import Api, served
from tests.support.console import fail, send
from tests.waiting import patient

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response

SHIPPED_TEMPLATES = Path(__file__).parents[2] / "templates"
#: Notifications of last March; more than one page shows.
IN_MARCH = 60


@dataclass
class Desk:
    """A console that runs, what is in its record, and the browser that looks at it."""

    url: str
    api: Api
    browser: Browser
    #: A copy of the templates that are shipped.
    templates: Path
    #: One that failed, with the reference `order-1007`.
    failed: str
    #: One SMS, to +15550100123.
    sms: str
    #: The first and the last day of March; the first mails have all statuses.
    march: tuple[str, str]
    #: What pages wrote to the browser's console, and whom they called besides us.
    complaints: list[str] = field(default_factory=list)

    def key(self, scope: Scope, producer: str | None = None) -> str:
        return self.api.key(scope, producer=producer)

    @contextmanager
    def page(self, key: str | None = None, *, width: int = 1280) -> Iterator[Page]:
        """Somebody who has just signed in; without a key, who has not."""
        # Reduced motion: colours that fade into each other cannot be judged meanwhile.
        context = self.browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="light", reduced_motion="reduce"
        )
        context.set_default_timeout(patient(10) * 1000)
        try:
            page = context.new_page()
            self._listen(context, page)
            page.goto(f"{self.url}/sign-in")
            if key is not None:
                page.get_by_label("Key").fill(key)
                page.get_by_role("button", name="Sign in").click()
                page.wait_for_url(f"{self.url}/**")
            yield page
        finally:
            context.close()

    def _listen(self, context: BrowserContext, page: Page) -> None:
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self._complain(str(error)))
        context.on("request", self._look_at)
        context.on("response", self._look_at_failure)

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self._complain(said.text)

    def _complain(self, line: str) -> None:
        # Said of pages, too, which may well be that of an error.
        if not line.startswith("Failed to load resource"):
            self.complaints.append(line)

    def _look_at(self, request: Request) -> None:
        if urlsplit(request.url).netloc not in (urlsplit(self.url).netloc, ""):
            self.complaints.append(f"called {request.url}")

    def _look_at_failure(self, answer: Response) -> None:
        if answer.status >= 400 and answer.request.resource_type != "document":
            self.complaints.append(f"{answer.status} of {answer.url}")


@pytest.fixture(scope="module")
def desk(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium on the PATH: apt-get install chromium, or brew install --cask google-chrome")
    # Not at the top: every process that collects tests would load it, and one of them uses it.
    from playwright.sync_api import sync_playwright

    templates = shutil.copytree(SHIPPED_TEMPLATES, tmp_path_factory.mktemp("desk") / "templates")
    database_url = databases.make()
    api = Api(database_url, templates)
    add_console(api.app, api.services, api.parts)
    failed, sms = _fill(api)
    march = _fill_march(api)
    with (
        served(api.app, ClientTimeouts()) as port,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS)) as browser,
    ):
        yield Desk(f"http://127.0.0.1:{port}", api, browser, templates, failed, sms, march)
    api.close()
    databases.drop(database_url)


def _fill(api: Api) -> tuple[str, str]:
    """One mail that failed, and an SMS that waits."""
    reset = {"reset_url": "https://shop.example.com/reset?token=x", "valid_minutes": 30}
    failed = send(
        api, template="password_reset", context=reset, reference="order-1007", to="Ann <ann@example.com>"
    )
    fail(api, failed, detail="550 5.7.1 the relay is closed")
    code = {"code": "042137", "valid_minutes": 10}
    sms = send(api, channel="sms", template="login_code", context=code, to="+15550100123", lane="urgent")
    _recur(api)
    return failed, sms


def _recur(api: Api) -> None:
    """A reminder that has run once, and refused one recipient."""
    items = [{"name": "Mug", "quantity": 1}]
    parcel = {"carrier": "Post", "tracking_url": "https://example.com/track", "items": items}
    shared = {"customer_name": "Ann", "order_id": "C-1", **parcel}
    plan = {"name": "reminder", "cron": "30 9 * * 1-5", "zone": "Europe/Berlin", "channel": "email"}
    recipients = [{"to": "ann@example.com"}, {"to": "a b@example.com"}]
    body = {**plan, "template": "order_shipped", "context": shared, "recipients": recipients}
    key = api.key(Scope.SEND)
    made = api("POST", "/v1/recurring", key=key, json_body=body)
    assert made.status == 201, made.body
    api("POST", f"/v1/recurring/{made.json['id']}/run", key=key)
    assert api.services.recurring_runs.tick() == {"accepted": 1, "refused": 1}


def _fill_march(api: Api) -> tuple[str, str]:
    """Mails of the last March that is over, of every status."""
    now = datetime.now(UTC)
    begin = datetime(now.year - (now.month < 4), 3, 1, tzinfo=UTC)
    new = [_accepted(position, begin + timedelta(hours=12 * position)) for position in range(IN_MARCH)]
    assert all(one.fault is None for one in api.services.ledger.accept(new))
    with transaction(api.services.engine) as connection:
        for number, status in enumerate(Status):
            id_ = new[number].message.id
            statement = "UPDATE states SET status = :status, due_at = NULL WHERE id = :id"
            connection.execute(text(statement), {"id": id_, "status": status})
    return f"{begin:%Y-%m-01}", f"{begin:%Y-%m-31}"


def _accepted(position: int, at: datetime) -> NewNotification:
    id_ = UUID(int=first_id(at).int + (7 << 76) + (2 << 62))
    fields = {"context": {}, "reference": "in-march", "to": "ann@example.com", "template": "receipt"}
    message = Message(id=id_, producer="shop", **fields)
    return NewNotification(message, Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.HOLD, position)
