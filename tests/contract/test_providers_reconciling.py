"""After an answer that was lost: does the provider have the message?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from notifier.dev.twilio_server import TwilioRule, TwilioServer, running_twilio_server
from notifier.domain.errors import OutcomeUnknown, Unavailable
from notifier.domain.statuses import Reason
from notifier.providers.base import Outgoing, Receipt, Reconciles, Sought
from notifier.providers.smtp.provider import SmtpProvider
from notifier.providers.twilio.options import TwilioOptions
from notifier.providers.twilio.provider import TwilioProvider
from notifier.providers.vonage.provider import VonageProvider
from tests.waiting import patient, wait_until

#: Nothing takes so long.
DEADLINE_SECONDS = 30.0
TO, SENDER, TEXT = "+15550100123", "+15550100100", "Your code is 4711.\n"


@pytest.fixture
def server() -> Iterator[TwilioServer]:
    with running_twilio_server(TwilioServer(callback_delay_seconds=0)) as server:
        yield server


def make_provider(server: TwilioServer, token: str | None = None) -> TwilioProvider:
    options = TwilioOptions(
        account_sid=server.account_sid, auth_token=token or server.auth_token, api_base=server.url
    )
    return TwilioProvider("text", options)


def make_sought(server: TwilioServer, *, asked_after: timedelta = timedelta(hours=1)) -> Sought:
    """An attempt that is under way just now, looked up later."""
    now = datetime.now(UTC)
    asked_at = now + asked_after
    return Sought(uuid4(), 1, TO, SENDER, TEXT, now - timedelta(seconds=1), now, asked_at=asked_at)


def send(server: TwilioServer, *texts: str, sender: str = SENDER) -> list[str]:
    """Send them one after the other. Returns the ids of the receipts that came."""

    async def run() -> list[str]:
        provider = make_provider(server)
        outgoing = [Outgoing(uuid4(), 1, TO, sender, text) for text in texts]
        try:
            receipts = [await provider.send(each, deadline_seconds=DEADLINE_SECONDS) for each in outgoing]
        finally:
            await provider.close()
        return [receipt.provider_message_id for receipt in receipts]

    return asyncio.run(run())


def find(provider: TwilioProvider, sought: Sought, deadline_seconds: float = DEADLINE_SECONDS) -> list[Receipt]:
    async def run() -> list[Receipt]:
        try:
            return list(await provider.find(sought, deadline_seconds=deadline_seconds))
        finally:
            await provider.close()

    return asyncio.run(run())


def until_all_are(server: TwilioServer, status: str) -> None:
    wait_until(lambda: all(message.status == status for message in server.messages), every=0.005)


def test_a_message_whose_answer_was_lost_is_found(server: TwilioServer) -> None:
    server.faults.add(TwilioRule("*", action="close"))
    with pytest.raises(OutcomeUnknown):
        send(server, TEXT)
    [found] = find(make_provider(server), make_sought(server))
    (message,) = server.messages
    assert found.provider_message_id == message.sid


def test_what_the_server_never_took_is_surely_not_there(server: TwilioServer) -> None:
    assert find(make_provider(server), make_sought(server)) == []


def test_it_is_too_early_to_say_no_while_it_may_still_turn_up(server: TwilioServer) -> None:
    with pytest.raises(Unavailable) as early:
        find(make_provider(server), make_sought(server, asked_after=timedelta()))
    assert 50 < (early.value.retry_after_seconds or 0) <= 60


def test_a_message_that_still_waits_is_found_by_no_day_but_found() -> None:
    with running_twilio_server(TwilioServer(callback_delay_seconds=60)) as server:
        (sid,) = send(server, TEXT)
        found = find(make_provider(server), make_sought(server))
    assert found == [Receipt(sid, "queued")]


def test_a_message_that_failed_was_taken_all_the_same(server: TwilioServer) -> None:
    server.faults.add(TwilioRule("*", final_status="undelivered", error_code=30005))
    (sid,) = send(server, TEXT)
    until_all_are(server, "undelivered")
    assert find(make_provider(server), make_sought(server)) == [Receipt(sid, "undelivered, code 30005")]


def test_a_message_of_a_messaging_service_is_found_by_the_service(server: TwilioServer) -> None:
    service = "MG" + "0123456789abcdef" * 2
    (sid,) = send(server, TEXT, sender=service)
    [found] = find(make_provider(server), replace(make_sought(server), sender=service))
    assert found.provider_message_id == sid


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "Your code is 4712.\n"},
        {"to": "+15550100124"},
        {"sender": "+15550100101"},
        # From the moment of the test, not of its collection: others may run for minutes in between.
        {"started_at": timedelta(days=-1), "finished_at": None},
        {"started_at": timedelta(seconds=30), "finished_at": None},
        {"finished_at": timedelta(minutes=-2)},
    ],
    ids=["text", "recipient", "sender", "day", "too early", "too late"],
)
def test_another_message_is_not_taken_for_it(server: TwilioServer, changes: dict[str, object]) -> None:
    send(server, TEXT)
    until_all_are(server, "delivered")
    now = datetime.now(UTC)
    moved = {name: now + value if isinstance(value, timedelta) else value for name, value in changes.items()}
    assert find(make_provider(server), replace(make_sought(server), **moved)) == []  # type: ignore[arg-type]


def test_white_space_at_the_end_makes_no_other_message(server: TwilioServer) -> None:
    send(server, TEXT.strip())
    assert len(find(make_provider(server), make_sought(server))) == 1


def test_every_message_that_may_be_it_is_found_and_none_that_is_known_to_be_anothers(server: TwilioServer) -> None:
    sids = send(server, TEXT, TEXT)
    sought = make_sought(server)
    assert {found.provider_message_id for found in find(make_provider(server), sought)} == set(sids)
    [second] = find(make_provider(server), replace(sought, exclude=frozenset({sids[0]})))
    assert second.provider_message_id == sids[1]
    assert find(make_provider(server), replace(sought, exclude=frozenset(sids))) == []


def test_it_is_found_on_a_later_page(server: TwilioServer) -> None:
    (sid, *_) = send(server, TEXT, *(f"Message {number}" for number in range(120)))
    until_all_are(server, "delivered")
    found = find(make_provider(server), replace(make_sought(server), started_at=server.messages[0].created_at))
    assert found == [Receipt(sid, "delivered")]


def test_more_messages_than_are_read_leave_it_open(server: TwilioServer) -> None:
    send(server, *(f"Message {number}" for number in range(501)))
    until_all_are(server, "delivered")
    with pytest.raises(Unavailable, match="more than 500 messages"):
        find(make_provider(server), make_sought(server))


@pytest.mark.parametrize(
    "rule",
    [
        TwilioRule("*", status=500),
        TwilioRule("*", status=429, code=20429, headers={"Retry-After": "7"}),
        TwilioRule("*", status=400, code=21211),
        TwilioRule("*", action="close"),
        TwilioRule("*", action="truncate"),
        TwilioRule("*", action="garbage"),
        TwilioRule("*", action="silent"),
    ],
    ids=lambda rule: str(rule.action or rule.status),
)
def test_an_answer_that_is_none_tells_nothing(server: TwilioServer, rule: TwilioRule) -> None:
    send(server, TEXT)
    server.listing_faults.add(rule)
    started = time.monotonic()
    with pytest.raises(Unavailable) as failed:
        find(make_provider(server), make_sought(server), deadline_seconds=0.5)
    assert time.monotonic() - started < 0.5 + patient(1.5)
    assert failed.value.reason is Reason.PROVIDER_UNAVAILABLE
    assert failed.value.retry_after_seconds == (7 if rule.status == 429 else None)
    assert TO not in failed.value.detail


def test_credentials_that_are_wrong_are_our_accounts_fault(server: TwilioServer) -> None:
    with pytest.raises(Unavailable) as failed:
        find(make_provider(server, token="wrong"), make_sought(server))
    assert failed.value.reason is Reason.PROVIDER_ACCOUNT


def test_only_a_provider_that_can_search_reconciles() -> None:
    mail = SmtpProvider.from_options("mail", {"url": "smtp://127.0.0.1"})
    vonage = VonageProvider.from_options("text", {"api_key": "abcd1234", "api_secret": "secret"})
    twilio = TwilioProvider("text", TwilioOptions(account_sid="AC" + "0" * 32, auth_token="secret"))
    assert [isinstance(provider, Reconciles) for provider in (mail, vonage, twilio)] == [False, False, True]
