"""The Celery side: tasks as they are registered, results for those who want them, names of the queues."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from celery import Celery
from pydantic import SecretStr
from sqlalchemy import text

from notifier.config import Settings
from notifier.message import Message
from notifier.parsing import check
from notifier.status import Channel, Lane, OnUnknown
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.values import NewNotification
from notifier.worker import DISPATCH, IDS_PER_TASK, PARTITIONS, STATISTICS, make_app, task_publisher
from tests.support.service import running_service


@pytest.fixture
def settings(database_url: str, redis_broker_url: str) -> Settings:
    return Settings(database_url=SecretStr(database_url), broker_url=SecretStr(redis_broker_url))


@pytest.fixture
def app(settings: Settings) -> Iterator[Celery]:
    app = make_app(settings)
    yield app
    app.close()


def accept(database_url: str, count: int = 1) -> None:
    batch = []
    for position in range(count):
        message = Message(idempotency_key=str(position), producer="shop", to="ann@example.com", template="receipt")
        checked = check(message, Channel.EMAIL, Lane.NORMAL)
        batch.append(NewNotification(checked, Channel.EMAIL, Lane.NORMAL, "1", OnUnknown.RESEND, position))
    engine = make_engine(database_url)
    Ledger(engine).accept(batch)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE notifications SET due_at = now()"))
    engine.dispose()


def test_the_sweep_publishes_tasks_of_ids_only(app: Celery, settings: Settings) -> None:
    accept(settings.require("database_url"), IDS_PER_TASK + 1)
    assert app.tasks[DISPATCH]() == IDS_PER_TASK + 1
    with redis.Redis.from_url(settings.require("broker_url")) as client:
        tasks = client.lrange("deliver.email.normal", 0, -1)
    assert len(tasks) == 2
    assert not any(b"ann@example.com" in task or b"receipt" in task for task in tasks)


def test_the_daily_jobs_run(app: Celery, settings: Settings) -> None:
    accept(settings.require("database_url"))
    assert app.tasks[PARTITIONS]() == []
    # Of yesterday: whatever day it is, what was accepted just now is not among it.
    assert app.tasks[STATISTICS]() == [] or datetime.now(UTC).hour == 0


def test_times_are_utc_and_everything_is_json(app: Celery) -> None:
    assert app.conf.timezone == "UTC"
    assert app.conf.enable_utc
    assert app.conf.task_serializer == app.conf.result_serializer == "json"
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_ignore_result


def test_ids_are_spread_over_tasks(app: Celery, settings: Settings) -> None:
    from notifier.message import new_id

    task_publisher(app)(Channel.SMS, Lane.URGENT, [new_id() for _ in range(2 * IDS_PER_TASK + 1)])
    with redis.Redis.from_url(settings.require("broker_url")) as client:
        assert client.llen("deliver.sms.urgent") == 3


def test_a_result_can_be_looked_up_where_a_backend_is_set(
    database_url: str, redis_broker_url: str, tmp_path: Path
) -> None:
    environment = {"NOTIFIER_RESULT_BACKEND": redis_broker_url}
    with running_service(database_url, redis_broker_url, tmp_path, environment=environment):
        settings = Settings(
            database_url=SecretStr(database_url),
            broker_url=SecretStr(redis_broker_url),
            result_backend=SecretStr(redis_broker_url),
        )
        app = make_app(settings)
        result = app.send_task(DISPATCH)
        assert result.get(timeout=30) == 0
        assert result.state == "SUCCESS"
        app.close()
