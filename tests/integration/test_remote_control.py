"""Celery's remote control of real workers, on both brokers: off, or for questions only."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from celery import Celery
from pydantic import SecretStr

from notifier.client.client import Client
from notifier.config.settings import Settings
from notifier.worker.app import make_app
from notifier.worker.remote_control import REFUSED
from tests.profiles import brokers
from tests.support import forking
from tests.support.service import running_service
from tests.waiting import patient, wait_until

RESET = {"reset_url": "https://shop.example.com/reset?token=x", "valid_minutes": 30}

REFUSALS = '"worker.command_refused"'
#: command → its arguments. Celery obeys each of them.
COMMANDS: dict[str, dict[str, Any]] = {
    "add_consumer": {"queue": "notify.email.urgent"},
    "cancel_consumer": {"queue": "deliver.email.urgent"},
    "rate_limit": {"task_name": "notifier.deliver", "rate_limit": "1/h"},
    "time_limit": {"task_name": "notifier.deliver", "soft": 0.001, "hard": 0.002},
    "pool_shrink": {"n": 100},
    "pool_grow": {"n": -5},
    "pool_restart": {},
    "autoscale": {"max": 0, "min": 0},
    "revoke": {"task_id": "x", "terminate": True},
    "revoke_by_stamped_headers": {"headers": {"a": "b"}},
    "terminate": {"task_id": "x", "signal": "KILL"},
    "hello": {"from_node": "stranger", "revoked": {"x": 1}},
    "election": {"id": "x", "topic": "y"},
    "disable_events": {},
    "memsample": {},
    "objgraph": {},
    "shutdown": {},
}


#: The one that is asked; the other has what is the default.
ASKED = "worker-urgent"
EVENTS = {"worker-heartbeat", "task-received", "task-succeeded"}


@pytest.mark.parametrize("broker_url", brokers(), indirect=True)
def test_a_worker_has_no_remote_control_or_answers_questions_and_obeys_no_command(
    database_url: str, broker_url: str, tmp_path: Path
) -> None:
    app = make_app(Settings(database_url=SecretStr(database_url), broker_url=SecretStr(broker_url)))
    with (
        running_service(
            database_url, broker_url, tmp_path, own={ASKED: {"NOTIFIER_WORKER_QUESTIONS": "true"}}
        ) as service,
        Client(broker_url, producer="shop") as client,
        events(app) as told,
    ):
        wait_until(lambda: _answers(app, "ping") == [{"ok": "pong"}], timeout=60)
        wait_until(lambda: len(_queues(app)) == 1, timeout=30)
        read = _queues(app)
        for name, arguments in COMMANDS.items():
            app.control.broadcast(name, arguments=arguments)
        log = service.programs.logs[ASKED]
        wait_until(lambda: log.read_text().count(REFUSALS) == len(COMMANDS), timeout=30)
        assert '"reason": "shutdown"' in log.read_text()
        wait_until(lambda: _answers(app, "shutdown") == [{"error": REFUSED}], timeout=30)
        wait_until(lambda: ["pool" in answer for answer in _answers(app, "stats")] == [True], timeout=30)
        wait_until(lambda: _queues(app) == read, timeout=30)
        for number in range(20):
            lane = "normal" if number % 2 else "urgent"
            client.send("password_reset", f"user{number}@example.com", lane=lane, context=RESET)
        wait_until(lambda: service.count("sent") == 20, timeout=60)
        assert REFUSALS not in service.programs.logs["worker-normal"].read_text()
        # Flower's list of workers and tasks is made of these.
        wait_until(
            lambda: all(
                (str(service.programs.pids[name]), kind) in told
                for name in (ASKED, "worker-normal")
                for kind in EVENTS
            )
        )
        _command_line(database_url, broker_url, tmp_path)
    app.close()


@contextmanager
def events(app: Celery) -> Iterator[set[tuple[str, str]]]:
    """What workers tell of themselves: process id and kind of event."""
    told: set[tuple[str, str]] = set()
    with app.connection() as connection:
        receiver = app.events.Receiver(
            connection, handlers={"*": lambda event: told.add((str(event["pid"]), event["type"]))}
        )
        thread = Thread(target=lambda: receiver.capture(limit=None, timeout=None, wakeup=False))
        thread.start()
        try:
            yield told
        finally:
            receiver.should_stop = True
            thread.join()


def _answers(app: Celery, method: str) -> list[Any]:
    replies = app.control.broadcast(method, reply=True, timeout=1)
    return [answer for reply in replies for answer in reply.values()]


def _queues(app: Celery) -> list[list[str]]:
    return [sorted(queue["name"] for queue in read) for read in _answers(app, "active_queues")]


def _command_line(database_url: str, broker_url: str, folder: Path) -> None:
    environment = os.environ | {
        "NOTIFIER_DATABASE_URL": database_url,
        "NOTIFIER_BROKER_URL": broker_url,
        "NOTIFIER_DATA_DIR": str(folder),
    }
    command = [sys.executable, "-m", "celery", "-A", "notifier.worker.app", "inspect", "ping", "--timeout", "2"]
    done = forking.run(command, env=environment, capture_output=True, text=True, timeout=patient(60), check=True)
    assert "pong" in done.stdout
