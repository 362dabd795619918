"""Which connection a request gets, and what is said to one that got none."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

from notifier.client.addresses import ApiAddress
from notifier.client.conversations import ApiRequest
from notifier.client.service_api import _Connections

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
