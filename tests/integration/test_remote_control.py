"""Celery's remote control of real workers, on both brokers: questions are answered, commands refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from celery import Celery
from pydantic import SecretStr

from notifier.client import Client
from notifier.config import Settings
from notifier.remote_control import REFUSED
from notifier.worker import make_app
from tests.support.service import Service, running_service
from tests.waiting import wait_until

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


def test_workers_answer_questions_and_obey_no_command(database_url: str, broker_url: str, tmp_path: Path) -> None:
    app = make_app(Settings(database_url=SecretStr(database_url), broker_url=SecretStr(broker_url)))
    with (
        running_service(database_url, broker_url, tmp_path) as service,
        Client(broker_url, producer="shop") as client,
    ):
        workers = sum(name.startswith("worker") for name in service.programs.running)
        wait_until(lambda: _answers(app, "ping", workers) == [{"ok": "pong"}] * workers, timeout=60)
        wait_until(lambda: len(_queues(app, workers)) == workers, timeout=30)
        read = _queues(app, workers)
        for name, arguments in COMMANDS.items():
            app.control.broadcast(name, arguments=arguments)
        wait_until(lambda: all(log.count(REFUSALS) == len(COMMANDS) for log in _logs(service)), timeout=30)
        assert all('"reason": "shutdown"' in log for log in _logs(service))
        wait_until(lambda: _answers(app, "shutdown", workers) == [{"error": REFUSED}] * workers, timeout=30)
        wait_until(
            lambda: sum("pool" in answer for answer in _answers(app, "stats", workers)) == workers, timeout=30
        )
        wait_until(lambda: _queues(app, workers) == read, timeout=30)
        for number in range(20):
            client.send("password_reset", f"user{number}@example.com", lane="urgent", context=RESET)
        wait_until(lambda: service.count("sent") == 20, timeout=60)
        assert len(_logs(service)) == workers
        _command_line(database_url, broker_url, tmp_path)
    app.close()


def _answers(app: Celery, method: str, workers: int) -> list[Any]:
    replies = app.control.broadcast(method, reply=True, timeout=2, limit=workers)
    return [answer for reply in replies for answer in reply.values()]


def _queues(app: Celery, workers: int) -> list[list[str]]:
    return sorted(sorted(queue["name"] for queue in read) for read in _answers(app, "active_queues", workers))


def _logs(service: Service) -> list[str]:
    return [log.read_text() for name, log in service.programs.logs.items() if name.startswith("worker")]


def _command_line(database_url: str, broker_url: str, folder: Path) -> None:
    environment = os.environ | {
        "NOTIFIER_DATABASE_URL": database_url,
        "NOTIFIER_BROKER_URL": broker_url,
        "NOTIFIER_DATA_DIR": str(folder),
    }
    command = [sys.executable, "-m", "celery", "-A", "notifier.worker", "inspect", "ping", "--timeout", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "pong" in done.stdout
