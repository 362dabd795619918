"""The servers that accept messages over HTTP: `notifier api`, and the guides' view with Celery's `delay()`. One
process each.

No worker runs: the measurement is how fast messages are accepted, and they stay where they are.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import amqp
import psycopg

from bench import mails
from bench.service import environment
from bench.subjects import Ground, Task
from notifier.dev.embedded.rabbitmq import amqp_connection
from notifier.dev.machine import free_port, is_free
from notifier.dev.processes import ServerProcess
from notifier.operations.api_keys import ApiKeys, Grants, Scope
from notifier.store.api_keys import ApiKeyRepository
from notifier.store.engine import make_engine
from notifier.store.operator_actions import OperatorActions

GUIDE_QUEUE = "celery_guide"
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A running server."""

    port: int
    pid: int
    path: str
    #: The path for many messages in one request; None if that is not possible.
    batch_path: str | None
    token: str
    #: Number of messages that it holds: in the record, or in the queue.
    held: Callable[[], int]


@contextlib.contextmanager
def notifier_api(ground: Ground) -> Iterator[HttpServer]:
    """Our API, on a new database."""
    with contextlib.ExitStack() as stack:
        broker_url = ground.rabbitmq.make_vhost()
        stack.callback(ground.rabbitmq.drop_vhost, broker_url)
        database_url = ground.databases.make()
        stack.callback(ground.databases.drop, database_url)
        port = free_port()
        settings = environment(database_url, broker_url, Task(smtp_port=9)) | {"NOTIFIER_API_PORT": str(port)}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("NOTIFIER_")}
        arguments = ("-m", "notifier", "api")
        process = stack.enter_context(running(ground.folder, "api", arguments, {**inherited, **settings}, port))
        database = stack.enter_context(psycopg.connect(database_url, autocommit=True))

        def held() -> int:
            found = database.execute("SELECT count(*) FROM notifications").fetchone()
            return int(found[0]) if found else 0

        token = make_key(database_url, Scope.SEND, "bench")
        yield HttpServer(port, process, "/v1/notifications", "/v1/notifications/batch", token, held)


@contextlib.contextmanager
def celery_view(ground: Ground) -> Iterator[HttpServer]:
    """The guides' view, on a new virtual host."""
    with contextlib.ExitStack() as stack:
        broker_url = ground.rabbitmq.make_vhost()
        stack.callback(ground.rabbitmq.drop_vhost, broker_url)
        port = free_port()
        arguments = (
            *("-m", "uvicorn", "bench.peers.celery_guide.app:app", "--host", "127.0.0.1", "--port", str(port)),
            # The parser that ours uses.
            *("--no-access-log", "--log-level", "warning", "--http", "h11"),
        )
        settings = {**os.environ, "BENCH_BROKER_URL": broker_url}
        process = stack.enter_context(running(ground.folder, "celery-view", arguments, settings, port))
        yield HttpServer(port, process, "/mails", None, "", lambda: waiting(broker_url, GUIDE_QUEUE))


@contextlib.contextmanager
def answering(ground: Ground) -> Iterator[HttpServer]:
    """A server that does not limit the load: shows the most that the load can do."""
    port = free_port()
    arguments = ("-m", "bench.http_load", "--answer", str(port))
    with running(ground.folder, "answering", arguments, os.environ, port) as process:
        yield HttpServer(port, process, "/", None, "", lambda: 0)


@contextlib.contextmanager
def running(
    folder: Path, name: str, arguments: Sequence[str], settings: Mapping[str, str], port: int
) -> Iterator[int]:
    """A Python program that listens on `port`, ended with the block. Yields its process id."""
    process = ServerProcess(
        name,
        [sys.executable, *arguments],
        log=folder / f"{name}.log",
        stop_plan=[(signal.SIGTERM, _STOP_SECONDS)],
        cwd=mails.HERE.parent,
        env=settings,
    )
    process.start()
    try:
        process.wait_until(lambda: not is_free(port), _START_SECONDS)
        assert process.pid is not None
        yield process.pid
    finally:
        process.stop()


def waiting(broker_url: str, queue: str) -> int:
    """The number of messages in a queue; 0 if it does not exist."""
    with amqp_connection(broker_url) as connection:
        try:
            return int(connection.channel().queue_declare(queue, passive=True).message_count)
        except amqp.NotFound:
            return 0


def make_key(database_url: str, scope: Scope, producer: str | None = None) -> str:
    """The token of a new key; without a producer, it is an operator's."""
    engine = make_engine(database_url)
    try:
        keys = ApiKeys(ApiKeyRepository(engine), OperatorActions(engine))
        return keys.create(Grants((scope,), "bench", producer), operator="bench").token
    finally:
        engine.dispose()
