"""The Celery side: tasks as they are registered, results for those who want them, names of the queues."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from celery import Celery
from pydantic import SecretStr
from sqlalchemy import text

from notifier.broker import redis_transport
from notifier.client.client import Client
from notifier.config.settings import Settings
from notifier.dev.smtp_server import Rule
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane, OnUnknown
from notifier.domain.validation import check
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.records import NewNotification
from notifier.store.search import Audit
from notifier.worker.app import make_app
from notifier.worker.names import DISPATCH, IDS_PER_TASK, PARTITIONS, STATISTICS, TICK_SECONDS
from notifier.worker.tasks import Process, task_publisher
from tests.support.service import running_service
from tests.support.tcp_proxy import through_proxy
from tests.waiting import patient, wait_until

RESET = {"reset_url": "https://shop.example.com/reset?token=x", "valid_minutes": 30}


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
        connection.execute(text("UPDATE states SET due_at = now()"))
    engine.dispose()


def test_the_sweep_publishes_tasks_of_ids_only(app: Celery, settings: Settings) -> None:
    accept(settings.require("database_url"), IDS_PER_TASK + 1)
    assert app.tasks[DISPATCH]() == IDS_PER_TASK + 1
    with redis.Redis.from_url(settings.require("broker_url")) as client:
        tasks = client.lrange("deliver.email.normal", 0, -1)
    assert len(tasks) == 2
    assert not any(b"ann@example.com" in task or b"receipt" in task for task in tasks)


def test_a_table_that_is_locked_takes_one_thread_of_a_process_and_stops_no_message(
    app: Celery, settings: Settings
) -> None:
    """`jobs` while somebody changes it: the sweep that waits for it is the only one that does."""
    engine = make_engine(settings.require("database_url"))
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = CAST('jobs' AS regclass)")

    def waiters() -> int:
        with transaction(engine) as connection:
            return int(connection.execute(waiting).scalar_one())

    def sweep() -> int:
        # Another tick counts after half of one.
        return wait_until(lambda: int(app.tasks[DISPATCH]()), every=TICK_SECONDS / 4)

    with ThreadPoolExecutor(1) as threads, transaction(engine) as lock:
        lock.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
        accept(settings.require("database_url"))
        first = threads.submit(app.tasks[DISPATCH])
        wait_until(lambda: waiters() == 1, patient(10))
        with transaction(engine) as connection:
            connection.execute(text("UPDATE states SET due_at = now()"))
        assert sweep() == 1
        assert waiters() == 1
        assert not first.done()
        lock.rollback()
        assert first.result() == 1
    engine.dispose()


def test_a_process_leaves_jobs_to_others_while_a_quarter_of_its_threads_has_some(settings: Settings) -> None:
    process = Process(settings.model_copy(update={"worker_threads": 8}))
    with process.jobs.turn() as first, process.jobs.turn() as second, process.jobs.turn() as third:
        assert (first, second, third) == (True, True, False)
    with process.jobs.turn() as again:
        assert again
    process.stop()


def test_the_daily_jobs_run(app: Celery, settings: Settings) -> None:
    accept(settings.require("database_url"))
    assert app.tasks[PARTITIONS]()["partitions"] == []
    # Of yesterday: whatever day it is, what was accepted just now is not among it.
    assert app.tasks[STATISTICS]() == {"statistics": []} or datetime.now(UTC).hour == 0


def test_times_are_utc_and_everything_is_json(app: Celery) -> None:
    assert app.conf.timezone == "UTC"
    assert app.conf.enable_utc
    assert app.conf.task_serializer == app.conf.result_serializer == "json"
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_ignore_result


def test_ids_are_spread_over_tasks(app: Celery, settings: Settings) -> None:
    from notifier.domain.message import new_id

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
        assert result.get(timeout=patient(30)) == 0
        assert result.state == "SUCCESS"
        app.close()


@pytest.mark.parametrize(
    ("broker", "shown", "tls"),
    [
        ("redis://ann:s3%40cret@10.0.0.9:1/3", "redis://ann:s3%40cret@10.0.0.9:1/3", False),
        ("rediss://10.0.0.9:1/0?ssl_cert_reqs=required", "rediss://10.0.0.9:1/0", True),
    ],
)
def test_a_redis_broker_is_reached_by_our_transport_and_known_by_its_url(
    broker: str, shown: str, tls: bool
) -> None:
    app = make_app(Settings(broker_url=SecretStr(broker)))
    for connection in (app.connection_for_read(), app.connection_for_write(), app.connection().clone()):
        assert isinstance(connection.transport, redis_transport.RedisTransport)
        assert connection.as_uri(include_password=True) == shown
        assert bool(connection.ssl) is tls
    app.close()


def test_rabbitmq_is_reached_by_kombus_own_transport() -> None:
    app = make_app(Settings(broker_url=SecretStr("amqp://guest:guest@10.0.0.9/")))
    assert app.connection().transport.driver_type == "amqp"
    app.close()


def test_a_worker_that_loses_its_broker_with_a_task_in_hand_goes_on_calmly(
    database_url: str, broker_url: str, tmp_path: Path
) -> None:
    rules = [Rule("slow@example.com", stage="body", delay_seconds=3)]
    with (
        through_proxy(broker_url) as (proxy, url),
        running_service(database_url, url, tmp_path, mail_rules=rules) as service,
        Client(broker_url, producer="shop", timeout_seconds=10) as client,
    ):
        log = service.programs.logs["worker-normal"]
        client.send("password_reset", "slow@example.com", context=RESET)
        wait_until(lambda: service.count("sending") == 1, timeout=60)
        proxy.cut()
        wait_until(lambda: log.read_text().count("Connected to") == 2, timeout=60)
        wait_until(lambda: service.count("sent") == 1, timeout=60)
        client.send("password_reset", "bob@example.com", context=RESET)
        wait_until(lambda: service.count("sent") == 2, timeout=60)
        assert [mail.rcpt_to for mail in service.mail.messages] == [("slow@example.com",), ("bob@example.com",)]
        assert '"critical"' not in log.read_text()
        # kombu puts the task back when it leaves Redis, and has nothing left to acknowledge.
        assert ("worker.acknowledgement_lost" in log.read_text()) is broker_url.startswith("amqp")
        client.send("password_reset", "slow@example.com", context=RESET)
        wait_until(lambda: service.count("sending") == 1, timeout=60)
    # The worker was told to end while a call was under way whose task had given back its thread, or was about to.
    engine = make_engine(database_url)
    assert [(row.status, row.count) for row in Audit(engine).count()] == [("sent", 3)]
    engine.dispose()
    assert "not ended" not in log.read_text()
