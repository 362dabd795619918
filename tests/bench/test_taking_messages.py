"""Both servers of the measurements over HTTP take a message and have it; so do all producers of the other one."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import pytest

from bench import client_calls
from bench.http_load import message
from bench.http_servers import HttpServer, celery_view, notifier_api
from bench.postfix import Absent
from bench.subjects import Ground
from tests.profiles import full_only
from tests.provisioning.databases import Databases
from tests.provisioning.rabbitmq import AmqpServer
from tests.waiting import patient, wait_until


@pytest.fixture
def ground(tmp_path: Path, databases: Databases, amqp_server: AmqpServer) -> Ground:
    return Ground(tmp_path, cast("Any", None), cast("Any", amqp_server), databases, Absent("not needed"))


@pytest.mark.parametrize("server_of", [notifier_api, celery_view])
def test_message_that_is_answered_is_there(
    ground: Ground, server_of: Callable[[Ground], AbstractContextManager[HttpServer]]
) -> None:
    with server_of(ground) as server:
        assert server.held() == 0
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}{server.path}",
            json.dumps(message(1, key="k1")).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {server.token}"},
        )
        with urllib.request.urlopen(request, timeout=patient(10)) as answer:
            assert answer.status == 202
        # RabbitMQ may confirm a message a moment before it counts it.
        wait_until(lambda: server.held() == 1)


@full_only
def test_every_producer_sends_what_it_counts(ground: Ground) -> None:
    found = client_calls.measure(ground, rounds=1, seconds=0.2, say=lambda _: None)
    assert set(found) == set(client_calls.TURNS)
