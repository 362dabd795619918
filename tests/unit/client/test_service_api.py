"""Which connection a request gets, and what is said to one that got none."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

from notifier.client.addresses import ApiAddress
from notifier.client.conversations import ApiRequest
from notifier.client.service_api import _Connections

SENDING = ApiRequest("POST", "/v1/notifications", body=b"{}")
WAITING = ApiRequest("GET", "/v1/notifications/1/status", held_seconds=20, is_wait=True)


def test_who_was_late_behind_a_hundred_others_is_told_of_them() -> None:
    connections: Any = _Connections(SimpleNamespace, ApiAddress("http://127.0.0.1:1", "ntf_live_x"))
    with ExitStack() as others:
        for _ in range(200):
            others.enter_context(connections.carrier(WAITING))
        for _ in range(100):
            assert connections.late(SENDING, 5.0).problem == "no whole answer within 5 s"
            others.enter_context(connections.carrier(SENDING))
        late = connections.late(SENDING, 5.0)
        assert late.problem.startswith("no whole answer within 5 s, with 100 requests or more at once")
        assert late.is_late
    assert connections.late(SENDING, 5.0).problem == "no whole answer within 5 s"
