"""Every provider through the same cases, on real sockets, against servers that do what each case says."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from notifier.dev.smtp_server import MailServer, Rule, running_mail_server
from notifier.dev.twilio_server import TwilioRule, TwilioServer, running_twilio_server
from notifier.dev.vonage_server import VonageRule, VonageServer, running_vonage_server
from notifier.domain.errors import SendError, Throttled
from notifier.domain.statuses import Outcome, Reason
from notifier.providers.base import Outgoing, Provider, Receipt
from notifier.providers.smtp.provider import SmtpProvider
from notifier.providers.twilio.provider import TwilioProvider
from notifier.providers.vonage.provider import VonageProvider
from tests.waiting import patient

#: Nothing takes so long.
DEADLINE_SECONDS = 30.0
#: For cases in which nothing ever answers.
SHORT_SECONDS = 0.1


@dataclass(frozen=True)
class Case:
    """What the server does, and what must come of it."""

    outcome: Outcome
    reason: Reason | None = None
    #: Makes the server behave so.
    prepare: Callable[[World], None] = lambda _world: None
    deadline_seconds: float = DEADLINE_SECONDS


@dataclass
class World:
    """One kind of provider and the server that it talks to."""

    kind: str
    server: MailServer | TwilioServer | VonageServer
    cases: dict[str, Case]
    make: Callable[[], Provider]
    to: str
    sender: str
    #: The id that the server gave to a message.
    id_of: Callable[[Any], str]
    #: Set by a case: somewhere else than at `server`.
    port: int | None = None
    cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def outgoing(self) -> Outgoing:
        return Outgoing(uuid4(), 1, self.to, self.sender, "Your code is 4711.\n", subject="Your code")

    def send(self, deadline_seconds: float = DEADLINE_SECONDS) -> Receipt:
        async def run() -> Receipt:
            provider = self.make()
            try:
                return await provider.send(self.outgoing(), deadline_seconds=deadline_seconds)
            finally:
                await provider.close()

        return asyncio.run(run())

    def check(self) -> str:
        async def run() -> str:
            provider = self.make()
            try:
                return await provider.check(deadline_seconds=DEADLINE_SECONDS)
            finally:
                await provider.close()

        return asyncio.run(run())


def smtp(**rule: object) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        assert isinstance(world.server, MailServer)
        world.server.faults.add(Rule("*", **rule))  # type: ignore[arg-type]

    return prepare


def twilio(**rule: object) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        assert isinstance(world.server, TwilioServer)
        world.server.faults.add(TwilioRule("*", **rule))  # type: ignore[arg-type]

    return prepare


def vonage(**rule: object) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        assert isinstance(world.server, VonageServer)
        world.server.faults.add(VonageRule("*", **rule))  # type: ignore[arg-type]

    return prepare


def at_closed_port(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        world.port = unused.getsockname()[1]


def at_port_that_hangs_up(world: World) -> None:
    """A server that takes each connection and closes it without having read anything."""
    listening = world.cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
    world.port = listening.getsockname()[1]

    def hang_up() -> None:
        with contextlib.suppress(OSError):
            while True:
                listening.accept()[0].close()

    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    world.cleanup.callback(thread.join, 5)
    # A blocked accept() only ends when the socket is shut down.
    world.cleanup.callback(listening.shutdown, socket.SHUT_RDWR)


REFUSED_CONNECTION = Case(Outcome.UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE, at_closed_port)

SMTP_CASES = {
    "accepted": Case(Outcome.ACCEPTED),
    "refused for good": Case(Outcome.REJECTED, Reason.INVALID_RECIPIENT, smtp(reply="550 5.1.1 no such user")),
    "temporary": Case(Outcome.UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE, smtp(reply="451 4.3.0 try later")),
    "throttled": Case(Outcome.THROTTLED, Reason.PROVIDER_THROTTLED, smtp(reply="450 4.7.28 too fast")),
    "account": Case(Outcome.UNAVAILABLE, Reason.PROVIDER_ACCOUNT, smtp(reply="554 5.7.1 Relay access denied")),
    "connection refused": REFUSED_CONNECTION,
    "hangs up at once": Case(Outcome.UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE, at_port_that_hangs_up),
    "closes before the data": Case(
        Outcome.UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE, smtp(stage="data", action="close_before_reply")
    ),
    "closes within the data": Case(Outcome.UNKNOWN, None, smtp(stage="body", action="close_mid_data")),
    "closes after the data": Case(Outcome.UNKNOWN, None, smtp(stage="body", action="close_before_reply")),
    "silent at first": Case(
        Outcome.UNAVAILABLE, None, smtp(stage="connect", action="silent"), deadline_seconds=SHORT_SECONDS
    ),
    "silent before the data": Case(
        Outcome.UNAVAILABLE, None, smtp(stage="data", action="silent"), deadline_seconds=SHORT_SECONDS
    ),
    "silent after the data": Case(
        Outcome.UNKNOWN, None, smtp(stage="body", action="silent"), deadline_seconds=SHORT_SECONDS
    ),
    "garbage before the data": Case(Outcome.UNAVAILABLE, None, smtp(stage="rcpt", reply="what do you want")),
    "garbage after the data": Case(Outcome.UNKNOWN, None, smtp(stage="body", reply="what do you want")),
    "refuses the data": Case(
        Outcome.REJECTED, Reason.CONTENT_REFUSED, smtp(stage="body", reply="550 5.7.1 looks like spam")
    ),
    "refuses the sender": Case(
        Outcome.UNAVAILABLE, Reason.SENDER_REFUSED, smtp(stage="mail", reply="553 5.1.8 not yours")
    ),
    "goes away": Case(Outcome.UNAVAILABLE, None, smtp(stage="rcpt", reply="421 4.3.2 shutting down")),
    "not ready": Case(Outcome.UNAVAILABLE, None, smtp(stage="connect", reply="554 5.3.2 go away")),
}

TWILIO_CASES = {
    "accepted": Case(Outcome.ACCEPTED),
    "refused for good": Case(
        Outcome.REJECTED, Reason.INVALID_RECIPIENT, twilio(status=400, code=21211, message="Invalid 'To'")
    ),
    "temporary": Case(Outcome.UNAVAILABLE, Reason.UNREACHABLE_RECIPIENT, twilio(status=400, code=30003)),
    "throttled": Case(
        Outcome.THROTTLED,
        Reason.PROVIDER_THROTTLED,
        twilio(status=429, code=20429, headers={"Retry-After": "301"}),
    ),
    "account": Case(Outcome.UNAVAILABLE, Reason.PROVIDER_ACCOUNT, twilio(status=403, code=20005)),
    "connection refused": REFUSED_CONNECTION,
    # The request may already be on its way when the end of the connection is seen: HTTP shows no difference.
    "hangs up at once": Case(Outcome.UNKNOWN, None, at_port_that_hangs_up),
    "closes after the data": Case(Outcome.UNKNOWN, None, twilio(action="close")),
    "silent after the data": Case(Outcome.UNKNOWN, None, twilio(action="silent"), deadline_seconds=SHORT_SECONDS),
    "too slow": Case(Outcome.UNKNOWN, None, twilio(action="drip"), deadline_seconds=SHORT_SECONDS),
    "cuts the answer": Case(Outcome.UNKNOWN, None, twilio(action="truncate")),
    "garbage after the data": Case(Outcome.UNKNOWN, None, twilio(action="garbage")),
    "server error": Case(Outcome.UNKNOWN, None, twilio(status=500)),
    "unknown refusal": Case(Outcome.REJECTED, Reason.PROVIDER_REJECTED, twilio(status=400, code=99999)),
}

VONAGE_CASES = {
    "accepted": Case(Outcome.ACCEPTED),
    "refused for good": Case(
        Outcome.REJECTED, Reason.INVALID_RECIPIENT, vonage(statuses=("33",), error_text="15550100123 de-activated")
    ),
    "temporary": Case(Outcome.UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE, vonage(statuses=("13",))),
    "throttled": Case(
        Outcome.THROTTLED,
        Reason.PROVIDER_THROTTLED,
        vonage(statuses=("1",), error_text="Throughput Rate Exceeded - please wait [ 301000 ] and retry"),
    ),
    "account": Case(Outcome.UNAVAILABLE, Reason.PROVIDER_ACCOUNT, vonage(statuses=("9",))),
    "connection refused": REFUSED_CONNECTION,
    # As with Twilio: HTTP shows no difference.
    "hangs up at once": Case(Outcome.UNKNOWN, None, at_port_that_hangs_up),
    "closes after the data": Case(Outcome.UNKNOWN, None, vonage(action="close")),
    "silent after the data": Case(Outcome.UNKNOWN, None, vonage(action="silent"), deadline_seconds=SHORT_SECONDS),
    "too slow": Case(Outcome.UNKNOWN, None, vonage(action="drip"), deadline_seconds=SHORT_SECONDS),
    "cuts the answer": Case(Outcome.UNKNOWN, None, vonage(action="truncate")),
    "garbage after the data": Case(Outcome.UNKNOWN, None, vonage(action="garbage")),
    "server error": Case(Outcome.UNKNOWN, None, vonage(http_status=500)),
    "too many requests": Case(Outcome.THROTTLED, Reason.PROVIDER_THROTTLED, vonage(http_status=429)),
    "unknown refusal": Case(Outcome.REJECTED, Reason.PROVIDER_REJECTED, vonage(statuses=("99",))),
    "internal error": Case(Outcome.UNKNOWN, Reason.OUTCOME_UNKNOWN, vonage(statuses=("5",))),
    "takes a part of it": Case(Outcome.UNKNOWN, Reason.OUTCOME_UNKNOWN, vonage(statuses=("0", "1"))),
    "refuses parts differently": Case(
        Outcome.REJECTED, Reason.UNREACHABLE_RECIPIENT, vonage(statuses=("1", "7", "9"))
    ),
}


@contextlib.contextmanager
def smtp_world() -> Iterator[World]:
    with running_mail_server() as server, contextlib.ExitStack() as cleanup:

        def make() -> Provider:
            return SmtpProvider.from_options("mail", {"url": f"smtp://127.0.0.1:{here.port or server.port}"})

        to, sender = "zoe@example.com", "Corner Shop <hello@shop.example.com>"
        here = World("smtp", server, SMTP_CASES, make, to, sender, lambda _message: "00000001", cleanup=cleanup)
        yield here


@contextlib.contextmanager
def twilio_world() -> Iterator[World]:
    with running_twilio_server() as server, contextlib.ExitStack() as cleanup:

        def make() -> Provider:
            options = {
                "account_sid": server.account_sid,
                "auth_token": server.auth_token,
                "api_base": f"http://127.0.0.1:{here.port or server.port}",
            }
            return TwilioProvider.from_options("text", options)

        to, sender = "+15550100123", "+15550100100"
        here = World(
            "twilio", server, TWILIO_CASES, make, to, sender, lambda message: message.sid, cleanup=cleanup
        )
        yield here


@contextlib.contextmanager
def vonage_world() -> Iterator[World]:
    with running_vonage_server() as server, contextlib.ExitStack() as cleanup:

        def make() -> Provider:
            options = {
                "api_key": server.api_key,
                "api_secret": server.api_secret,
                "api_base": f"http://127.0.0.1:{here.port or server.port}",
            }
            return VonageProvider.from_options("text", options)

        def id_of(message: Any) -> str:
            (only,) = message.message_ids
            return str(only)

        to, sender = "+15550100123", "+15550100100"
        here = World("vonage", server, VONAGE_CASES, make, to, sender, id_of, cleanup=cleanup)
        yield here


WORLDS = {
    "smtp": (smtp_world, SMTP_CASES),
    "twilio": (twilio_world, TWILIO_CASES),
    "vonage": (vonage_world, VONAGE_CASES),
}


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with WORLDS[request.param][0]() as world:
        yield world


EVERY_CASE = [
    pytest.param(kind, name, id=f"{kind}: {name}") for kind, (_, cases) in WORLDS.items() for name in cases
]


@pytest.mark.parametrize(("world", "name"), EVERY_CASE, indirect=["world"])
def test_every_case_ends_in_exactly_its_outcome_and_in_time(world: World, name: str) -> None:
    case = world.cases[name]
    case.prepare(world)
    deadline_seconds = patient(case.deadline_seconds)
    started = time.monotonic()
    expected = contextlib.nullcontext() if case.outcome is Outcome.ACCEPTED else pytest.raises(SendError)
    with expected as failed:
        world.send(deadline_seconds)
    assert time.monotonic() - started < deadline_seconds + patient(1)
    if failed is not None:
        assert failed.value.outcome is case.outcome
        assert case.reason is None or failed.value.reason is case.reason
        assert not re.search("zoe@|5550100123", failed.value.detail)


@pytest.mark.parametrize(("world", "name"), EVERY_CASE, indirect=["world"])
def test_what_is_not_in_doubt_is_true_at_the_server_too(world: World, name: str) -> None:
    case = world.cases[name]
    case.prepare(world)
    with contextlib.suppress(SendError):
        world.send(patient(case.deadline_seconds))
    if case.outcome is Outcome.ACCEPTED:
        assert world.server.received == 1
    elif case.outcome is not Outcome.UNKNOWN:
        assert world.server.received == 0


@pytest.mark.parametrize("world", WORLDS, indirect=True)
def test_a_receipt_carries_the_id_that_the_server_gave(world: World) -> None:
    receipt = world.send()
    (message,) = world.server.messages
    assert receipt.provider_message_id == world.id_of(message)
    assert receipt.detail


@pytest.mark.parametrize("world", WORLDS, indirect=True)
def test_throttling_says_how_long_to_wait(world: World) -> None:
    world.cases["throttled"].prepare(world)
    with pytest.raises(Throttled) as throttled:
        world.send()
    assert throttled.value.retry_after_seconds is not None
    assert throttled.value.retry_after_seconds >= 300


@pytest.mark.parametrize("world", WORLDS, indirect=True)
def test_check_sends_nothing(world: World) -> None:
    assert world.check()
    assert world.server.received == 0


@pytest.mark.parametrize("world", WORLDS, indirect=True)
def test_check_raises_as_send_does_when_nobody_answers(world: World) -> None:
    at_closed_port(world)
    with pytest.raises(SendError) as failed:
        world.check()
    assert failed.value.outcome is Outcome.UNAVAILABLE


@pytest.mark.parametrize("world", WORLDS, indirect=True)
def test_a_cancelled_send_leaves_nothing_open(world: World) -> None:
    world.cases["silent after the data"].prepare(world)

    async def run() -> None:
        provider = world.make()
        sending = asyncio.create_task(provider.send(world.outgoing(), deadline_seconds=DEADLINE_SECONDS))
        async with asyncio.timeout(patient(DEADLINE_SECONDS)):
            while not world.server.received:
                await asyncio.sleep(0.005)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        world.server.faults.clear()
        await provider.send(world.outgoing(), deadline_seconds=DEADLINE_SECONDS)
        await provider.close()

    asyncio.run(run())
    assert world.server.received == 2


@pytest.mark.parametrize("world", WORLDS, indirect=True)
def test_many_sends_at_once_all_arrive(world: World) -> None:
    async def run() -> list[Receipt]:
        provider = world.make()
        try:
            sends = (provider.send(world.outgoing(), deadline_seconds=DEADLINE_SECONDS) for _ in range(100))
            return await asyncio.gather(*sends)
        finally:
            await provider.close()

    receipts = asyncio.run(run())
    assert len({receipt.provider_message_id for receipt in receipts}) == 100
    assert world.server.received == 100


@pytest.mark.parametrize("world", WORLDS, indirect=True)
def test_a_closed_provider_can_be_closed_again(world: World) -> None:
    async def run() -> None:
        provider = world.make()
        await provider.close()
        await provider.close()

    asyncio.run(run())
