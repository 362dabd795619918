"""Heartbeats on a real Postgres: one in each slot, whatever runs twice, and what is late is said everywhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr, ValidationError
from sqlalchemy import text
from structlog.testing import LogCapture

from notifier.api.record_metrics import RecordMetrics
from notifier.bootstrap import Services
from notifier.cli.upkeep_checks import check_heartbeats
from notifier.config.heartbeats import HeartbeatTable
from notifier.config.settings import Settings
from notifier.config.structure import Structure
from notifier.domain.statuses import Channel
from notifier.operations import heartbeats
from notifier.operations.heartbeats import PRODUCER
from notifier.store.engine import transaction
from notifier.store.filters import Filter
from notifier.worker.app import make_app
from notifier.worker.names import HEARTBEATS
from notifier.worker.tasks import Process
from tests.unit.cli.commandline import CommandLine

TOML = """
[heartbeats]
email = "probe@example.com"
sms = "+15550100123"
lanes = ["urgent", "bulk"]
every_minutes = 1440
"""
LANES = [("email", "urgent"), ("email", "bulk"), ("sms", "urgent"), ("sms", "bulk")]


def settings_of(url: str, **table: Any) -> Settings:
    structure = Structure(heartbeats=HeartbeatTable.model_validate(table))
    # No task is published, so nobody connects to the broker.
    settings = Settings(database_url=SecretStr(url), broker_url=SecretStr("redis://127.0.0.1:1/0"))
    return settings.model_copy(update={"structure": structure})


@pytest.fixture
def services(database_url: str) -> Iterator[Services]:
    table = {"email": "probe@example.com", "sms": "+15550100123", "lanes": ["urgent", "bulk"]}
    made = Services(settings_of(database_url, every_minutes=1440, **table), pool_size=6)
    yield made
    made.close()


def execute(services: Services, statement: str) -> None:
    with transaction(services.engine) as connection:
        connection.execute(text(statement))


def ages(services: Services) -> dict[tuple[str, str], float]:
    families = {one.name: one for one in RecordMetrics(services).of_record()}
    samples = families["notifier_heartbeat_age_seconds"].samples
    return {(one.labels["channel"], one.labels["lane"]): one.value for one in samples}


def test_each_lane_gets_one_in_each_slot(services: Services) -> None:
    process = Process(services.settings)
    app = make_app(services.settings, process)
    threads = [threading.Thread(target=services.heartbeats.send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Beat asks each minute.
    assert app.tasks[HEARTBEATS]() == 0
    found = services.audit.search(Filter(producer=PRODUCER))
    assert sorted((one.channel, one.lane) for one in found) == sorted(LANES)
    assert {(one.template, one.status, one.proof) for one in found} == {("heartbeat", "queued", "service")}
    assert all(one.expires_at is not None and one.expires_at > one.accepted_at for one in found)
    # The slot before is over.
    execute(services, "UPDATE messages SET accepted_at = accepted_at - interval '1 day'")
    execute(services, "UPDATE idempotency_keys SET key = key || ' before'")
    assert app.tasks[HEARTBEATS]() == len(LANES)
    rendered = services.renderer.render(
        Channel.SMS, "heartbeat", None, {"lane": "bulk", "at": "2026-03-08T14:30:00Z"}
    )
    assert rendered.text == "Heartbeat: the lane bulk sends SMS. Due at 2:30 PM UTC."
    process.stop()
    app.close()


def test_what_is_late_is_said(services: Services, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "notifier.toml").write_text(TOML)
    notifier = CommandLine({"database_url": SecretStr(database_url), "config": tmp_path / "notifier.toml"})
    assert ages(services) == dict.fromkeys(LANES, float("inf"))
    assert [check.ok for check in check_heartbeats(services)] == [False] * len(LANES)
    services.heartbeats.send()
    execute(services, "UPDATE states SET sent_at = now() - interval '1 hour'")
    assert list(ages(services)) == LANES
    assert all(3600 <= age < 7200 for age in ages(services).values())
    assert [(check.ok, check.detail) for check in check_heartbeats(services)] == [(True, "4, none is late")]
    execute(services, "UPDATE states SET sent_at = now() - interval '49 hours' WHERE channel = 'sms'")
    execute(services, "UPDATE states SET sent_at = NULL WHERE channel = 'email' AND lane = 'bulk'")
    details = [check.detail for check in check_heartbeats(services)]
    assert details[0] == "email bulk is late: none was sent"
    assert [detail[:18] for detail in details[1:]] == ["sms urgent is late", "sms bulk is late: "]
    shown = [step for step in notifier("schedule", "list", "--json").json if step["name"].startswith("heartbeat ")]
    assert [(step["name"], step["is_late"]) for step in shown] == [
        ("heartbeat email urgent", False),
        ("heartbeat email bulk", True),
        ("heartbeat sms urgent", True),
        ("heartbeat sms bulk", True),
    ]
    assert {step["when"] for step in shown} == {"every 1440 minutes"}


def test_nobody_who_does_not_ask_gets_any(database_url: str) -> None:
    services = Services(settings_of(database_url), pool_size=2)
    assert services.heartbeats.send() == 0
    assert services.heartbeats.schedule() == []
    assert list(check_heartbeats(services)) == []
    assert ages(services) == {}
    services.close()


def test_a_refused_heartbeat_is_logged(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "email").mkdir()
    settings = settings_of(database_url, email="probe@example.com").model_copy(update={"templates": tmp_path})
    services = Services(settings, pool_size=2)
    # Whatever another test has configured, and structlog has kept.
    logged = LogCapture()
    monkeypatch.setattr(heartbeats, "log", structlog.wrap_logger(None, processors=[logged]))
    assert services.heartbeats.send() == 0
    (line,) = (one for one in logged.entries if one["event"] == "heartbeat.refused")
    assert "there is no email template 'heartbeat'" in line["reason"]
    assert "probe" not in str(line)
    assert services.audit.search(Filter()) == []
    services.close()


@pytest.mark.parametrize("table", [{"email": "probe"}, {"sms": "0155"}, {"lanes": []}, {"every_minutes": 0}])
def test_a_slip_in_the_table_ends_a_program_at_its_start(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HeartbeatTable.model_validate(table)
