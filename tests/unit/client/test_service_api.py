"""Which connection a request gets, and what is said to one that got none."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from notifier import AsyncClient, Client, ConfigurationError, ServiceUnavailable, new_id
from notifier.client.addresses import ApiAddress
from notifier.client.conversations import ApiRequest
from notifier.client.service_api import _Connections
from tests.waiting import patient

SENDING = ApiRequest("POST", "/v1/notifications", body=b"{}")
WAITING = ApiRequest("GET", "/v1/notifications/1/status", held_seconds=20, is_wait=True)


def test_who_was_late_behind_a_hundred_others_is_told_of_them() -> None:
    connections: Any = _Connections(SimpleNamespace, ApiAddress("http://127.0.0.1:1", "ntf_live_x"), None)
    with ExitStack() as others:
        for _ in range(100):
            others.enter_context(connections.carrier(WAITING, connections.use(WAITING)))
        for _ in range(100):
            assert connections.late(SENDING, 5.0).problem == "no whole answer within 5 s"
            others.enter_context(connections.carrier(SENDING, connections.use(SENDING)))
        late = connections.late(SENDING, 5.0)
        assert late.problem.startswith("no whole answer within 5 s, with 100 requests or more at once")
        assert late.is_late
    assert connections.late(SENDING, 5.0).problem == "no whole answer within 5 s"


def test_threads_that_begin_together_make_one_client() -> None:
    made: list[object] = []

    def make(**_: Any) -> object:
        made.append(object())
        gone_on.wait(0.02)
        return made[-1]

    gone_on = threading.Event()
    connections: Any = _Connections(make, ApiAddress("http://127.0.0.1:1", "ntf_live_x"), None)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: connections._of(connections.use(SENDING)), range(8))) == {made[0]}
    assert len(made) == 1


def test_who_waits_is_told_at_once_that_the_client_was_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        address = f"http://127.0.0.1:{server.getsockname()[1]}", "ntf_live_x"

        def has_request() -> socket.socket:
            connection = server.accept()[0]
            assert connection.recv(1000)
            return connection

        with Client("redis://127.0.0.1:1/0", api_url=address[0], api_key=address[1]) as client:
            waiting = threads.submit(client.wait, new_id(), 600)
            with has_request():
                client.close()
                with pytest.raises(ServiceUnavailable, match="the client was closed meanwhile"):
                    waiting.result(patient(5))

        async def in_a_loop() -> None:
            client = AsyncClient(*address)
            task = asyncio.create_task(client.wait(new_id(), 600))
            with await asyncio.to_thread(has_request):
                await client.close()
                with pytest.raises(ServiceUnavailable, match="the client was closed meanwhile"):
                    await asyncio.wait_for(task, patient(5))

        asyncio.run(in_a_loop())


def test_a_client_of_another_event_loop_says_so_until_it_is_closed() -> None:
    client = AsyncClient("http://127.0.0.1:1", "ntf_live_x")
    for expected in (ServiceUnavailable, ConfigurationError):
        with pytest.raises(expected) as error:
            asyncio.run(client.status(new_id()))
    assert "belongs to another event loop: make one in each" in str(error.value)
    asyncio.run(client.close())
    with pytest.raises(ServiceUnavailable):
        asyncio.run(client.status(new_id()))
