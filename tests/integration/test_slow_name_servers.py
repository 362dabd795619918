"""Hosts whose names are answered late or never: whose they are waits for them, and nobody else.

Callbacks ask a real name server. The system's own look-up cannot be pointed to one: there its slow names are those
for which `socket.getaddrinfo` waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from notifier.callbacks import CallbackCaller, NameServers
from notifier.callbacks.http import CallbackAnswer
from notifier.callbacks.url_guard import CheckedResolver, ForbiddenAddress
from notifier.dev.smtp_server import MailServer, running_mail_server
from notifier.domain.statuses import CallbackFailure
from notifier.providers.base import Outgoing
from notifier.providers.http_session import HttpCall, HttpSession
from notifier.providers.smtp.provider import SmtpProvider
from notifier.providers.system_resolver import SystemResolver
from notifier.store.engine import make_engine
from tests.support.callbacks import World
from tests.support.name_server import NEVER, NameServer, name_server
from tests.support.receiver import Receiver, receiver
from tests.waiting import patient, slowness, wait_until

NAMES = {
    "fast.example.com": ("127.0.0.1",),
    "late.example.com": ("127.0.0.1",),
    "both.example.com": ("203.0.114.7", "2606:4700::1111"),
    "inside.example.com": ("203.0.114.7", "10.0.0.7"),
    "mapped.example.com": ("::ffff:127.0.0.1",),
    "shop.corp.example.com": ("127.0.0.1",),
}
LATE = {"never": NEVER, "late": 0.5}


@pytest.fixture
def server() -> Iterator[NameServer]:
    with name_server(NAMES, LATE) as server:
        yield server


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with receiver() as hooks:
        yield hooks


def asking(server: NameServer, **options: Any) -> NameServers:
    return NameServers([("127.0.0.1", server.port)], **options)


def found(resolver: NameServers, host: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[str]:
    return [one["host"] for one in asyncio.run(resolver.resolve(host, 443, family))]


def test_names_have_addresses_of_both_kinds(server: NameServer) -> None:
    names = asking(server)
    assert sorted(found(names, "both.example.com")) == ["203.0.114.7", "2606:4700::1111"]
    assert found(names, "both.example.com", socket.AF_INET6) == ["2606:4700::1111"]
    assert found(names, "LATE.example.com.") == ["127.0.0.1"]


def test_the_hosts_file_comes_first(server: NameServer) -> None:
    assert set(found(asking(server), "localhost")) <= {"127.0.0.1", "::1"}
    assert server.asked == []


@pytest.mark.parametrize(
    "host", ["nobody.example.com", "a" * 64 + ".example.com", "a..example.com", "\x00.example"]
)
def test_what_is_no_host_is_an_error_of_the_system(server: NameServer, host: str) -> None:
    with pytest.raises(OSError) as caught:
        found(asking(server), host)
    assert not isinstance(caught.value, TimeoutError)


def test_no_answer_in_time_is_a_timeout(server: NameServer) -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        found(asking(server, deadline_seconds=0.3), "never.example.com")
    assert time.monotonic() - begun < patient(3)


@pytest.mark.parametrize("host", ["inside.example.com", "mapped.example.com", "fast.example.com", "localhost"])
def test_every_address_that_a_name_server_says_is_checked(server: NameServer, host: str) -> None:
    async def resolve(allowed: set[str]) -> object:
        return await CheckedResolver(allowed, asking(server)).resolve(host, 443, socket.AF_UNSPEC)

    with pytest.raises(ForbiddenAddress):
        asyncio.run(resolve(set()))
    assert asyncio.run(resolve({host}))


def test_the_operators_own_hosts_are_looked_up_as_the_system_does_if_no_name_server_knows_them(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def resolve(host: str) -> object:
        return await CheckedResolver({"shop.lan"}, asking(server)).resolve(host, 443, socket.AF_UNSPEC)

    assert asyncio.run(resolve("shop.lan"))
    with pytest.raises(OSError, match="not exist"):
        asyncio.run(resolve("nobody.example.com"))
    assert asked == ["shop.lan"]


@pytest.mark.parametrize("slow", [8, 100])
def test_an_endpoint_is_called_at_once_while_others_names_are_never_answered(
    server: NameServer, hooks: Receiver, slow: int
) -> None:
    limit = slowness()

    async def run() -> tuple[CallbackAnswer, float, list[CallbackAnswer]]:
        caller = CallbackCaller({"fast.example.com"}, names=asking(server, deadline_seconds=limit))
        others = [
            asyncio.create_task(caller.call(f"https://never{number}.example.com/", {}, b"{}"))
            for number in range(slow)
        ]
        while len({name for name in server.asked if name.startswith("never")}) < slow:
            await asyncio.sleep(0.01)
        begun = time.monotonic()
        answer = await caller.call(f"http://fast.example.com:{hooks.port}/", {}, b"{}")
        seconds = time.monotonic() - begun
        ended = await asyncio.gather(*others)
        await caller.close()
        return answer, seconds, ended

    answer, seconds, ended = asyncio.run(run())
    assert answer == CallbackAnswer(None, 200)
    assert seconds < limit
    assert ended == [CallbackAnswer(CallbackFailure.TIMEOUT)] * slow


def test_a_producer_whose_hosts_are_all_slow_holds_up_no_other(
    database_url: str, server: NameServer, hooks: Receiver
) -> None:
    limit = 2.5 * slowness()
    world = World(make_engine(database_url, pool_size=5), hooks, names=asking(server, deadline_seconds=limit))
    for number in range(100):
        world.fail(producer="other", callback_url=f"https://never{number}.example.com/")
    busy = [world.runner.start(ids) for ids in world.book.give_out().values()]
    wait_until(lambda: any(name.startswith("never") for name in server.asked), timeout=10)
    begun = time.monotonic()
    world.fail()
    [ids] = [ids for endpoint, ids in world.book.give_out().items() if endpoint == "shop"]
    world.runner.start(ids).result(20)
    assert time.monotonic() - begun < 0.8 * limit
    assert [view.state for view in world.callbacks(producer="shop")] == ["delivered"]
    assert not any(one.done() for one in busy)
    for one in busy:
        one.result(patient(20))
    tried = [view for view in world.callbacks(producer="other") if view.attempt_count]
    world.close()
    assert {(view.state, view.failure) for view in tried} == {("waiting", "timeout")}


class SlowSystem:
    """Look-ups of names that begin with `never` wait until it ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.end = threading.Event()
        self._getaddrinfo = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, *rest: Any, **options: Any) -> Any:
        self.asked.append(host)
        if str(host).startswith("never"):
            self.end.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self._getaddrinfo(host, *rest, **options)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowSystem]:
    found = SlowSystem(monkeypatch)
    yield found
    found.end.set()


def mail() -> Outgoing:
    return Outgoing(uuid4(), 1, "ann@example.com", "shop@example.com", "Hello")


@pytest.mark.parametrize("slow", [8, 100])
def test_mails_go_out_as_fast_while_other_providers_names_are_never_answered(
    system: SlowSystem, slow: int
) -> None:
    async def run(port: int) -> tuple[float, float]:
        # A connection for each mail, and a look-up for each connection.
        options = {"url": f"smtp://localhost:{port}?starttls=never", "max_messages": "1"}
        relay = SmtpProvider.from_options("smtp", options)
        usual = await mails(relay)
        sessions = [HttpSession() for _ in range(slow)]
        others = [
            asyncio.create_task(ask(session, f"http://never{number}.example.com/"))
            for number, session in enumerate(sessions)
        ]
        while len(set(system.asked)) <= slow:
            await asyncio.sleep(0.01)
        meanwhile = await mails(relay)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for session in sessions:
            await session.close()
        await relay.close()
        return usual, meanwhile

    async def mails(relay: SmtpProvider) -> float:
        taken = []
        for _ in range(10):
            begun = time.monotonic()
            await relay.send(mail(), deadline_seconds=patient(5))
            taken.append(time.monotonic() - begun)
        return sorted(taken)[5]

    async def ask(session: HttpSession, url: str) -> None:
        await session.exchange(HttpCall(60), "GET", url)

    with running_mail_server(MailServer()) as server:
        usual, meanwhile = asyncio.run(run(server.port))
    assert meanwhile < usual * 5 + patient(0.1)


def test_who_asks_for_a_name_that_is_being_looked_up_shares_the_thread(system: SlowSystem) -> None:
    async def run() -> None:
        names = SystemResolver()
        asking = [asyncio.create_task(names.look_up("never.example.com", 25)) for _ in range(50)]
        await asyncio.sleep(0)
        asking[0].cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await names.look_up("never.example.com", 25)
        assert system.asked == ["never.example.com"]
        system.end.set()
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError)
        assert all(isinstance(one, socket.gaierror) for one in ended[1:])
        # It is asked for anew, not remembered.
        with pytest.raises(socket.gaierror):
            await names.look_up("never.example.com", 25)
        assert len(system.asked) == 2

    asyncio.run(run())


def test_a_look_up_that_never_ends_holds_up_no_loop_that_ends(system: SlowSystem) -> None:
    async def run(names: SystemResolver) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await names.look_up("never.example.com", 25)

    names = SystemResolver()
    asyncio.run(run(names))
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "look-up")
    asyncio.run(run(names))
    assert system.asked == ["never.example.com"] * 2
