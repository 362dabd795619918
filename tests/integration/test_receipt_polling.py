"""Receipts that never come: asked for at the provider, a few times, and then given up with a line that says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from notifier.bootstrap import Services
from notifier.config.settings import Settings
from notifier.delivery import ReceiptPoller
from notifier.delivery.sweep import Dispatcher
from notifier.dev.twilio_server import TwilioRule, TwilioServer, running_twilio_server
from notifier.domain.errors import Unavailable
from notifier.domain.statuses import Reason, Status
from notifier.feedback.receipt_polling import RECEIPT_WAIT_SECONDS
from notifier.feedback.receipts import ASK_AT_SECONDS
from notifier.providers.base import Outgoing, Report
from notifier.providers.twilio.options import TwilioOptions
from notifier.providers.twilio.provider import TwilioProvider
from notifier.providers.twilio.webhooks import report_of
from notifier.store.search import EventView
from tests.support.receipts import SID, Texts
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until


@dataclass
class Answering:
    """A provider that can be asked, and says what it is told to."""

    word: str | None = "sent"
    asked: list[str] = field(default_factory=list)

    async def ask(self, provider_message_id: str, *, deadline_seconds: float) -> Report:
        self.asked.append(provider_message_id)
        if self.word is None:
            raise Unavailable("away", reason=Reason.PROVIDER_UNAVAILABLE)
        return report_of(provider_message_id, self.word, None)


class World:
    def __init__(self, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        self.services = services
        self.texts = Texts(services.engine)
        self.loop = loop
        self.given: list[UUID] = []

    def poller(self, provider: Any) -> ReceiptPoller:
        return ReceiptPoller(
            self.services.provider_reports, self.services.receipts, {"twilio": provider}, self.loop
        )

    def sweep(self) -> list[UUID]:
        """What the sweep gives to a look-up."""
        given: list[UUID] = []
        dispatcher = Dispatcher(
            self.services.ledger, lambda *_: pytest.fail("a deliver task"), lambda _c, _l, ids: given.extend(ids)
        )
        dispatcher.dispatch_due()
        return given

    def wait(self, id_: UUID) -> float | None:
        """Seconds from now until it is asked for."""
        found = self.texts.story(id_).notification
        return None if found.due_at is None else (found.due_at - found.updated_at).total_seconds()

    def missing(self, id_: UUID) -> list[EventView]:
        return [event for event in self.texts.story(id_).events if event.kind == "no_receipt"]


@pytest.fixture
def world(database_url: str, tmp_path: Path, loop: asyncio.AbstractEventLoop) -> Iterator[World]:
    templates = write_templates(tmp_path / "templates")
    services = Services(Settings(database_url=database_url, templates=templates))
    yield World(services, loop)
    services.close()


def test_a_receipt_that_was_lost_is_asked_for_when_it_is_due(world: World) -> None:
    claim = world.texts.send()
    assert world.wait(claim.id) == pytest.approx(300, abs=1)
    assert world.sweep() == []
    world.texts.pass_time(claim.id, 300)
    assert world.sweep() == [claim.id]
    # Given out once; again only if nobody settles it.
    assert world.sweep() == []
    provider = Answering("delivered")
    assert world.poller(provider).ask([claim.id]) == 1
    assert provider.asked == [SID]
    found = world.texts.story(claim.id).notification
    assert (found.status, found.due_at) == (Status.DELIVERED, None)
    # The receipt itself, an hour later: known already.
    assert str(world.texts.report(claim.id, "delivered")) == "repeated"
    assert world.poller(provider).ask([claim.id]) == 0


def test_it_is_asked_for_with_growing_pauses_and_then_stays_sent_for_good(world: World) -> None:
    claim = world.texts.send()
    provider, poller = Answering("sent"), None
    poller = world.poller(provider)
    age = 0.0
    waits: list[float] = []
    while (wait := world.wait(claim.id)) is not None:
        world.texts.pass_time(claim.id, ASK_AT_SECONDS[len(waits)] - age)
        age = ASK_AT_SECONDS[len(waits)]
        waits.append(wait)
        assert world.sweep() == [claim.id]
        poller.ask([claim.id])
    assert len(provider.asked) == len(ASK_AT_SECONDS) == len(waits)
    [event] = world.missing(claim.id)
    assert event.detail == "no receipt came, and its provider knows no more: it stays sent"
    assert world.texts.status(claim.id) == Status.SENT
    assert world.sweep() == []
    # However late it is, a receipt is welcome.
    world.texts.report(claim.id, "undelivered", "30003")
    assert world.texts.status(claim.id) == Status.UNDELIVERED


def test_a_provider_that_is_away_is_asked_later_and_not_about_every_message(world: World) -> None:
    claims = world.texts.start(20)
    for number, claim in enumerate(claims):
        world.texts.accepted(claim, sid=f"SM{number}")
        world.texts.pass_time(claim.id, 300)
    ids = world.sweep()
    assert sorted(ids) == sorted(claim.id for claim in claims)
    provider = Answering(None)
    assert world.poller(provider).ask(ids) == 0
    assert len(provider.asked) <= 8
    assert {world.texts.status(id_) for id_ in ids} == {Status.SENT}
    assert not any(world.missing(id_) for id_ in ids)
    # In time it is given up, too.
    world.texts.pass_time(ids[0], RECEIPT_WAIT_SECONDS)
    world.poller(provider).ask([ids[0]])
    assert [event.detail for event in world.missing(ids[0])] == [
        "no receipt came, and its provider did not answer: it stays sent"
    ]


def test_where_nobody_can_be_asked_the_story_says_that_no_receipt_came(world: World) -> None:
    claim = world.texts.send()
    world.texts.pass_time(claim.id, RECEIPT_WAIT_SECONDS)
    world.poller(SimpleNamespace(has_webhook=True)).ask([claim.id])
    [event] = world.missing(claim.id)
    assert event.detail == "no receipt came, and its provider cannot be asked: it stays sent"


@pytest.mark.parametrize(
    ("rule", "status", "words"),
    [
        (TwilioRule("*"), Status.DELIVERED, "delivered"),
        (
            TwilioRule("*", final_status="undelivered", error_code=30003),
            Status.UNDELIVERED,
            "undelivered: handset cannot be reached now (code 30003)",
        ),
    ],
)
def test_the_local_twilio_is_asked_as_twilio_would_be(
    world: World, rule: TwilioRule, status: Status, words: str
) -> None:
    with running_twilio_server(TwilioServer([rule], callback_delay_seconds=0)) as server:
        provider = TwilioProvider(
            "twilio",
            TwilioOptions(account_sid=server.account_sid, auth_token=server.auth_token, api_base=server.url),
        )
        [claim] = world.texts.start()
        outgoing = Outgoing(claim.id, 1, claim.recipient, "+15550100100", "Your code is 4711.")
        sending = provider.send(outgoing, deadline_seconds=5)
        receipt = asyncio.run_coroutine_threadsafe(sending, world.loop).result(timeout=patient(10))
        world.texts.accepted(claim, sid=receipt.provider_message_id)
        wait_until(lambda: server.messages[0].status == status)
        assert world.poller(provider).ask([claim.id]) == 1
        asyncio.run_coroutine_threadsafe(provider.close(), world.loop).result(timeout=patient(10))
    assert world.texts.status(claim.id) == status
    assert world.texts.said(claim.id) == [words]
    [event] = [event for event in world.texts.story(claim.id).events if event.kind == "provider"]
    assert event.occurred_at is not None
