"""The tasks that programs of one version give to those of another, pinned: during an upgrade both kinds run.

A golden file is never edited. A task that needs other arguments gets a new name; the old one stays for a version.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import redis
from celery import Celery
from pydantic import SecretStr

from notifier.config.settings import Settings
from notifier.delivery import DeliverySummary
from notifier.domain.statuses import Channel, Lane
from notifier.worker.app import make_app
from notifier.worker.tasks import task_publisher

GOLDEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "tasks.v1.json").read_text())
#: What Beat sends. They take no arguments; a worker that does not know a name drops the task.
TICKS = {"notifier.dispatch_due", "notifier.ensure_partitions", "notifier.log_statistics"}


class Recorder:
    """Stands where a worker's deliverer, reconciler and poller are."""

    def __init__(self) -> None:
        self.ids: list[UUID] = []
        self.is_redelivered: bool | None = None

    def deliver(self, ids: list[UUID], *, is_redelivered: bool) -> DeliverySummary:
        self.ids, self.is_redelivered = ids, is_redelivered
        return DeliverySummary()

    def reconcile(self, ids: list[UUID]) -> int:
        self.ids = ids
        return 0

    def ask(self, ids: list[UUID]) -> int:
        assert ids == self.ids
        return 0


@pytest.mark.parametrize("name", GOLDEN)
def test_a_task_is_written_as_ever(name: str, redis_broker_url: str) -> None:
    golden = GOLDEN[name]
    _, channel, lane = golden["queue"].split(".")
    app = make_app(Settings(broker_url=SecretStr(redis_broker_url)))
    ids = [UUID(value) for value in golden["args"][0]]
    task_publisher(app, golden["task"])(Channel(channel), Lane(lane), ids)
    with redis.Redis.from_url(redis_broker_url) as client:
        (envelope,) = client.lrange(golden["queue"], 0, -1)
    message = json.loads(envelope)
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    assert (message["headers"]["task"], args, kwargs) == (golden["task"], golden["args"], golden["kwargs"])
    assert message["content-type"] == "application/json"
    app.close()


def app_of(recorder: Recorder) -> Celery:
    """With its tasks."""
    process: Any = SimpleNamespace(
        delivery=SimpleNamespace(deliverer=recorder, reconciler=recorder, poller=recorder),
        only_callbacks=False,
        stop=lambda **_: None,
    )
    return make_app(Settings(broker_url=SecretStr("redis://127.0.0.1:1/0")), process)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_task_of_another_version_is_done_as_ever(name: str) -> None:
    golden, recorder = GOLDEN[name], Recorder()
    app = app_of(recorder)
    app.tasks[golden["task"]](*golden["args"], **golden["kwargs"])
    assert recorder.ids == [UUID(value) for value in golden["args"][0]]
    app.close()


def test_the_tasks_of_beat_keep_their_names_and_take_no_arguments() -> None:
    app = make_app(Settings(broker_url=SecretStr("redis://127.0.0.1:1/0")))
    entries = app.conf.beat_schedule.values()
    assert {entry["task"] for entry in entries} >= TICKS
    assert not any("args" in entry or "kwargs" in entry for entry in entries)
    app.close()


@pytest.mark.parametrize(
    ("delivery_info", "expected"), [({"redelivered": True}, True), ({"redelivered": False}, False), (None, False)]
)
def test_a_worker_learns_that_a_task_was_delivered_before(
    delivery_info: dict[str, Any] | None, expected: bool
) -> None:
    recorder = Recorder()
    app = app_of(recorder)
    task = app.tasks["notifier.deliver"]
    task.push_request(delivery_info=delivery_info)
    task.run([])
    task.pop_request()
    app.close()
    assert recorder.is_redelivered is expected
