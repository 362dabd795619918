"""What only the `twilio` provider has: what it says to Twilio, and Twilio's own errors and callbacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from twilio.request_validator import RequestValidator

from notifier.dev.twilio_server import TwilioRule, TwilioServer, running_twilio_server
from notifier.domain.errors import Rejected, SendError, Unavailable
from notifier.domain.statuses import Outcome, Reason
from notifier.providers.base import Outgoing
from notifier.providers.twilio.http import DeadlineHttpClient, calling
from notifier.providers.twilio.provider import TwilioProvider
from tests.waiting import patient

#: Nothing takes so long.
DEADLINE_SECONDS = 30.0
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[TwilioServer]:
    with running_twilio_server(TwilioServer(callback_delay_seconds=0)) as server:
        yield server


def make_outgoing(to: str = "+15550100123", **changes: Any) -> Outgoing:
    fields = {"sender": "+15550100100", "text": "Your code is 4711."} | changes
    return Outgoing(uuid4(), 3, to, **fields)


def make_provider(server: TwilioServer, **changes: str) -> TwilioProvider:
    options = {"account_sid": server.account_sid, "auth_token": server.auth_token, "api_base": server.url}
    return TwilioProvider.from_options("text", options | changes)


def send(provider: TwilioProvider, *outgoing: Outgoing) -> None:
    async def run() -> None:
        try:
            for each in outgoing:
                await provider.send(each, deadline_seconds=DEADLINE_SECONDS)
        finally:
            await provider.close()

    asyncio.run(run())


def test_a_number_is_sent_as_from(server: TwilioServer) -> None:
    send(make_provider(server), make_outgoing())
    (message,) = server.messages
    assert (message.to, message.sender, message.messaging_service_sid) == ("+15550100123", "+15550100100", None)
    assert message.body == "Your code is 4711."


@pytest.mark.parametrize("sender", ["Corner Shop", "MGM", "12345"])
def test_a_name_or_short_code_is_sent_as_from(server: TwilioServer, sender: str) -> None:
    send(make_provider(server), make_outgoing(sender=sender))
    assert server.messages[0].sender == sender


def test_a_service_id_is_sent_as_messaging_service(server: TwilioServer) -> None:
    service = "MG" + "0123456789abcdef" * 2
    send(make_provider(server), make_outgoing(sender=service))
    assert (server.messages[0].sender, server.messages[0].messaging_service_sid) == (None, service)


def test_the_callback_url_carries_notification_and_attempt(server: TwilioServer) -> None:
    outgoing = make_outgoing()
    send(make_provider(server, public_url="http://127.0.0.1:1/base/"), outgoing)
    expected = f"http://127.0.0.1:1/base/webhooks/twilio/{outgoing.notification_id}/3"
    assert server.messages[0].status_callback == expected


def test_without_a_public_url_no_callback_is_asked_for(server: TwilioServer) -> None:
    send(make_provider(server), make_outgoing())
    assert server.messages[0].status_callback is None


@pytest.mark.parametrize(
    ("left", "option", "expected"),
    [
        (None, {}, 36000),
        (None, {"validity": "600"}, 600),
        (90.9, {}, 90),
        (9e9, {}, 36000),
        (90, {"validity": "60"}, 60),
    ],
)
def test_the_validity_ends_no_later_than_the_message_expires(
    server: TwilioServer, left: float | None, option: dict[str, str], expected: int
) -> None:
    send(make_provider(server, **option), make_outgoing(seconds_to_expiry=left))
    assert server.messages[0].validity_period == expected


@pytest.mark.parametrize(
    ("to", "sender", "outcome", "reason"),
    [
        ("+15005550001", "+15005550006", Outcome.REJECTED, Reason.INVALID_RECIPIENT),
        ("+15005550002", "+15005550006", Outcome.REJECTED, Reason.DESTINATION_REFUSED),
        ("+15005550003", "+15005550006", Outcome.REJECTED, Reason.DESTINATION_REFUSED),
        ("+15005550004", "+15005550006", Outcome.REJECTED, Reason.OPTED_OUT),
        ("+15005550009", "+15005550006", Outcome.REJECTED, Reason.INVALID_RECIPIENT),
        ("+15550100123", "+15005550007", Outcome.UNAVAILABLE, Reason.SENDER_REFUSED),
        ("+15550100123", "+15005550008", Outcome.THROTTLED, Reason.PROVIDER_THROTTLED),
        ("zoe", "+15005550006", Outcome.REJECTED, Reason.INVALID_RECIPIENT),
    ],
)
def test_magic_numbers_end_as_twilio_documents(
    server: TwilioServer, to: str, sender: str, outcome: Outcome, reason: Reason
) -> None:
    with pytest.raises(SendError) as failed:
        send(make_provider(server), make_outgoing(to, sender=sender))
    assert (failed.value.outcome, failed.value.reason) == (outcome, reason)


def test_a_body_that_is_too_long_is_a_fault_of_the_content(server: TwilioServer) -> None:
    with pytest.raises(Rejected) as rejected:
        send(make_provider(server), make_outgoing(text="x" * 1601))
    assert (rejected.value.reason, rejected.value.code) == (Reason.CONTENT_REFUSED, "21617")


def test_wrong_credentials_make_messages_wait(server: TwilioServer) -> None:
    with pytest.raises(Unavailable) as failed:
        send(make_provider(server, auth_token="wrong"), make_outgoing())
    assert (failed.value.reason, failed.value.code) == (Reason.PROVIDER_ACCOUNT, "20003")


def test_an_api_base_that_is_no_twilio_makes_messages_wait(server: TwilioServer) -> None:
    with pytest.raises(Unavailable) as failed:
        send(make_provider(server, api_base=f"{server.url}/elsewhere"), make_outgoing())
    assert failed.value.reason is Reason.PROVIDER_ACCOUNT


def test_a_post_is_never_repeated(server: TwilioServer) -> None:
    provider = make_provider(server)
    server.faults.add(TwilioRule("+15550100199", action="close"))

    async def run() -> None:
        await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)
        # On the connection of the first one, which is kept: the case in which some clients repeat a request.
        with pytest.raises(SendError) as failed:
            await provider.send(make_outgoing("+15550100199"), deadline_seconds=DEADLINE_SECONDS)
        assert failed.value.outcome is Outcome.UNKNOWN
        await provider.close()

    asyncio.run(run())
    assert server.received == 2


def test_the_check_names_the_account_and_its_state(server: TwilioServer) -> None:
    async def run() -> str:
        provider = make_provider(server)
        try:
            return await provider.check(deadline_seconds=DEADLINE_SECONDS)
        finally:
            await provider.close()

    assert asyncio.run(run()) == "account AC000000… is active"


def test_a_name_that_does_not_resolve_is_surely_not_accepted(server: TwilioServer) -> None:
    with pytest.raises(Unavailable):
        send(make_provider(server, api_base="http://nowhere.invalid"), make_outgoing())


def test_tls_that_fails_is_surely_not_accepted(server: TwilioServer) -> None:
    with pytest.raises(Unavailable):
        send(make_provider(server, api_base=server.url.replace("http:", "https:")), make_outgoing())


def test_nothing_personal_is_logged(server: TwilioServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        send(make_provider(server), make_outgoing())
    assert "5550100123" not in caplog.text
    assert server.account_sid not in caplog.text


def test_only_requests_to_twilio_are_sent_to_the_api_base(server: TwilioServer) -> None:
    async def run() -> None:
        http = DeadlineHttpClient(server.url)
        with calling(DEADLINE_SECONDS) as call:
            response = await http.request("GET", "https://api.twilio.com/2010-04-01/Accounts/x.json?a=b")
            assert (response.status_code, call.was_written) == (401, True)
        assert http._address("https://lookups.twilio.com/v2/x") == "https://lookups.twilio.com/v2/x"
        await http.close()

    asyncio.run(run())


def test_status_callbacks_are_signed_and_come_in_order() -> None:
    async def run() -> list[tuple[str, dict[str, str], str]]:
        got: list[tuple[str, dict[str, str], str]] = []
        everything = asyncio.Event()

        async def hook(request: web.Request) -> web.Response:
            form = {key: str(value) for key, value in (await request.post()).items()}
            got.append((str(request.url), form, request.headers["X-Twilio-Signature"]))
            if len(got) == 2:
                everything.set()
            return web.Response()

        application = web.Application()
        application.router.add_post("/webhooks/twilio/{id}/{attempt}", hook)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        twilio = TwilioServer(
            [TwilioRule("*", final_status="undelivered", error_code=30005)], callback_delay_seconds=0
        )
        await twilio.start()
        provider = make_provider(twilio, public_url=f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)
            async with asyncio.timeout(patient(DEADLINE_SECONDS)):
                await everything.wait()
        finally:
            await provider.close()
            await twilio.stop()
            await runner.cleanup()
        return got

    got = asyncio.run(run())
    assert [form["MessageStatus"] for _, form, _ in got] == ["sent", "undelivered"]
    assert got[1][1]["ErrorCode"] == "30005"
    validator = RequestValidator("local-auth-token")
    assert all(validator.validate(url, form, signature) for url, form, signature in got)
