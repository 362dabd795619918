"""What only the `vonage` provider has: what it says to Vonage, and answers in parts."""

from __future__ import annotations

import asyncio
import logging
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from notifier.dev.vonage_server import VonageRule, VonageServer, running_vonage_server
from notifier.domain.errors import OutcomeUnknown, Rejected, SendError, Throttled, Unavailable
from notifier.domain.statuses import Outcome, Reason
from notifier.providers.base import Outgoing, Receipt
from notifier.providers.vonage.options import VonageOptions
from notifier.providers.vonage.provider import VonageProvider

ROOT = Path(__file__).parents[2]
#: Nothing takes so long.
DEADLINE_SECONDS = 30.0
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[VonageServer]:
    with running_vonage_server() as server:
        yield server


def make_outgoing(to: str = "+15550100123", **changes: Any) -> Outgoing:
    fields = {"sender": "+15550100100", "text": "Your code is 4711."} | changes
    return Outgoing(uuid4(), 3, to, **fields)


def make_provider(server: VonageServer, **changes: Any) -> VonageProvider:
    options = {"api_key": server.api_key, "api_secret": server.api_secret, "api_base": server.url} | changes
    return VonageProvider("text", VonageOptions(**options))


def send(provider: VonageProvider, outgoing: Outgoing) -> Receipt:
    async def run() -> Receipt:
        try:
            return await provider.send(outgoing, deadline_seconds=DEADLINE_SECONDS)
        finally:
            await provider.close()

    return asyncio.run(run())


def check(provider: VonageProvider) -> str:
    async def run() -> str:
        try:
            return await provider.check(deadline_seconds=DEADLINE_SECONDS)
        finally:
            await provider.close()

    return asyncio.run(run())


def test_numbers_go_without_their_plus_and_our_id_goes_along(server: VonageServer) -> None:
    outgoing = make_outgoing()
    send(make_provider(server), outgoing)
    (message,) = server.messages
    assert (message.to, message.sender) == ("15550100123", "15550100100")
    assert message.client_ref == str(outgoing.notification_id)
    assert message.callback is None


def test_a_name_is_sent_as_it_is(server: VonageServer) -> None:
    send(make_provider(server), make_outgoing(sender="Corner Shop"))
    assert server.messages[0].sender == "Corner Shop"


@pytest.mark.parametrize(
    ("text", "type_"), [("Café à 5 €", "text"), ("Reçu", "unicode"), ("您的验证码", "unicode"), ("👍", "unicode")]
)
def test_a_text_arrives_as_it_was_written(server: VonageServer, text: str, type_: str) -> None:
    send(make_provider(server), make_outgoing(text=text))
    assert (server.messages[0].text, server.messages[0].type) == (text, type_)


def test_the_callback_url_carries_notification_and_attempt(server: VonageServer) -> None:
    outgoing = make_outgoing()
    send(make_provider(server, public_url="http://127.0.0.1:1/base"), outgoing)
    expected = f"http://127.0.0.1:1/base/webhooks/vonage/{outgoing.notification_id}/3/1"
    assert server.messages[0].callback == expected


@pytest.mark.parametrize(
    ("left", "option", "expected"),
    [
        (None, {}, 259_200_000),
        (None, {"validity": 600}, 600_000),
        (90.9, {}, 90_000),
        (20, {}, 20_000),
        (9e9, {}, 259_200_000),
        (90, {"validity": 60}, 60_000),
    ],
)
def test_the_ttl_ends_no_later_than_the_message_expires(
    server: VonageServer, left: float | None, option: dict[str, int], expected: int
) -> None:
    send(make_provider(server, **option), make_outgoing(seconds_to_expiry=left))
    assert server.messages[0].ttl == expected


@pytest.mark.parametrize("left_seconds", [-60, 0, 19.9])
def test_what_expires_before_the_shortest_ttl_is_not_sent(server: VonageServer, left_seconds: float) -> None:
    with pytest.raises(Rejected) as rejected:
        send(make_provider(server), make_outgoing(seconds_to_expiry=left_seconds))
    assert rejected.value.reason is Reason.EXPIRED
    assert server.received == 0


def test_the_receipt_of_a_long_text_names_every_part(server: VonageServer) -> None:
    receipt = send(make_provider(server), make_outgoing(text="x" * 400))
    first, second, third = server.messages[0].message_ids
    assert receipt == Receipt(first, f"accepted; further parts: {second}, {third}")


def test_some_parts_accepted_and_some_refused_is_not_sent_again_blindly(server: VonageServer) -> None:
    server.faults.add(VonageRule("*", statuses=("0", "1"), error_text="please wait [ 978 ] and retry"))
    with pytest.raises(OutcomeUnknown, match="1 of 3 parts accepted") as failed:
        send(make_provider(server), make_outgoing(text="x" * 400))
    assert failed.value.code == "1"


def test_parts_refused_for_different_reasons_are_judged_by_the_gravest(server: VonageServer) -> None:
    server.faults.add(VonageRule("*", statuses=("1", "9")))
    with pytest.raises(Unavailable) as failed:
        send(make_provider(server), make_outgoing(text="x" * 200))
    assert (failed.value.reason, failed.value.code) == (Reason.PROVIDER_ACCOUNT, "9")


def test_a_throttled_part_says_how_long_to_wait(server: VonageServer) -> None:
    words = "Throughput Rate Exceeded - please wait [ 978 ] and retry"
    server.faults.add(VonageRule("*", statuses=("1",), error_text=words, times=1))
    with pytest.raises(Throttled) as throttled:
        send(make_provider(server), make_outgoing())
    assert throttled.value.retry_after_seconds == 0.978
    send(make_provider(server), make_outgoing())


@pytest.mark.parametrize(
    ("changes", "code", "outcome", "reason"),
    [
        ({"to": "555"}, "3", Outcome.REJECTED, Reason.INVALID_RECIPIENT),
        ({"sender": ""}, "2", Outcome.UNAVAILABLE, Reason.SENDER_REFUSED),
        ({"text": ""}, "2", Outcome.REJECTED, Reason.PROVIDER_REJECTED),
    ],
)
def test_what_vonage_finds_wrong_is_read_by_its_words(
    server: VonageServer, changes: dict[str, str], code: str, outcome: Outcome, reason: Reason
) -> None:
    with pytest.raises(SendError) as failed:
        send(make_provider(server), make_outgoing(**changes))
    assert (failed.value.code, failed.value.outcome, failed.value.reason) == (code, outcome, reason)


def test_wrong_credentials_make_messages_wait(server: VonageServer) -> None:
    with pytest.raises(Unavailable) as failed:
        send(make_provider(server, api_secret="wrong"), make_outgoing())
    assert (failed.value.reason, failed.value.code) == (Reason.PROVIDER_ACCOUNT, "4")


def test_an_api_base_that_is_no_vonage_makes_messages_wait(server: VonageServer) -> None:
    with pytest.raises(Unavailable) as failed:
        send(make_provider(server, api_base=f"{server.url}/elsewhere"), make_outgoing())
    assert failed.value.reason is Reason.PROVIDER_ACCOUNT


def test_a_post_is_never_repeated(server: VonageServer) -> None:
    provider = make_provider(server)
    server.faults.add(VonageRule("15550100199", action="close"))

    async def run() -> None:
        await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)
        # On the connection of the first one, which is kept: the case in which some clients repeat a request.
        with pytest.raises(OutcomeUnknown):
            await provider.send(make_outgoing("+15550100199"), deadline_seconds=DEADLINE_SECONDS)
        await provider.close()

    asyncio.run(run())
    assert server.received == 2


def test_the_check_names_the_account_and_its_balance(server: VonageServer) -> None:
    assert check(make_provider(server)) == "account abcd… has a balance of 10.28 EUR"


def test_the_check_says_when_the_secret_is_wrong(server: VonageServer) -> None:
    with pytest.raises(Unavailable) as failed:
        check(make_provider(server, api_secret="wrong"))
    assert (failed.value.reason, failed.value.code) == (Reason.PROVIDER_ACCOUNT, "401")


def test_nothing_personal_is_logged(server: VonageServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        send(make_provider(server), make_outgoing())
    assert "5550100123" not in caplog.text
    assert server.api_secret not in caplog.text


def test_the_kind_is_an_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    module, _, name = project["entry-points"]["notifier.providers"]["vonage"].partition(":")
    assert getattr(import_module(module), name) is VonageProvider
