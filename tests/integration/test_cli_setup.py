"""`notifier db`, `queues` and `doctor` on real services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from notifier.client.client import Client
from notifier.dev.server_thread import running
from notifier.dev.smtp_server import MailServer
from notifier.security.encryption import new_key
from tests.unit.cli.commandline import CommandLine

QUEUES = 15


def test_db_upgrade_says_from_where_to_where(empty_database_url: str) -> None:
    notifier = CommandLine({"database_url": empty_database_url})
    assert notifier("db", "current").code == 1
    first = notifier("db", "upgrade")
    assert first.code == 0
    assert first.out.startswith("upgraded from an empty database to revision ")
    assert "partitions are there until the end of " in first.out
    assert notifier("db", "upgrade").out.startswith("already at revision ")
    current = notifier("db", "current", "--json").json
    assert current["current"] == current["newest"]
    assert notifier("db", "current").code == 0


def test_a_database_without_tables_is_told_with_its_fix(empty_database_url: str) -> None:
    answer = CommandLine({"database_url": empty_database_url})("search")
    assert answer.code == 1
    assert "notifier db upgrade" in answer.err


def test_a_database_that_is_away_is_told_in_a_line() -> None:
    answer = CommandLine({"database_url": "postgresql://user:hidden@127.0.0.1:1/none"})("search")
    assert answer.code == 1
    assert answer.err.startswith("error: the database cannot be used now")
    assert "hidden" not in answer.err


def test_queues_shows_what_waits(broker_url: str) -> None:
    notifier = CommandLine({"broker_url": broker_url})
    assert notifier("queues", "declare").code == 0
    with Client(broker_url, producer="shop") as client:
        client.send("hello", "ann@example.com", lane="urgent")
    states = {state["queue"]: state["messages"] for state in notifier("queues", "--json").json}
    assert states.pop("notify.email.urgent") == 1
    assert len(states) == QUEUES - 1
    assert set(states.values()) == {0}


def test_queues_that_are_missing_are_told(amqp_url: str) -> None:
    answer = CommandLine({"broker_url": amqp_url})("queues")
    assert answer.code == 1
    assert answer.out.count("missing") == QUEUES
    assert "notifier queues declare" in answer.err


def test_a_broker_that_is_away_is_told_without_its_password() -> None:
    for url in ("amqp://user:hidden@127.0.0.1:1/", "redis://:hidden@127.0.0.1:1/0"):
        answer = CommandLine({"broker_url": url})("queues")
        assert answer.code == 1
        assert "127.0.0.1:1" in answer.err
        assert "hidden" not in answer.err


def test_a_queue_that_is_declared_otherwise_is_named(amqp_url: str) -> None:
    declare_classic(amqp_url, "notify.sms.bulk")
    notifier = CommandLine({"broker_url": amqp_url})
    answer = notifier("queues", "declare")
    assert answer.code == 2
    assert "notify.sms.bulk" in answer.err
    wrong = [check for check in doctor(notifier) if not check["ok"] and "notify.sms.bulk" in check["detail"]]
    assert "rabbitmqctl delete_queue notify.sms.bulk" in wrong[0]["fix"]


def declare_classic(url: str, name: str) -> None:
    with Connection(url) as connection:
        exchange = Exchange("notify", type="topic", durable=True)
        Queue(name, exchange, routing_key="sms.bulk", durable=True).bind(connection.channel()).declare()


def doctor(notifier: CommandLine) -> list[dict[str, Any]]:
    checks: list[dict[str, Any]] = notifier("doctor", "--json").json
    return checks


def named(checks: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(check for check in checks if check["name"] == name)


def test_doctor_is_content_with_a_whole_service(database_url: str, broker_url: str, smtp_url: str) -> None:
    settings = {"database_url": database_url, "broker_url": broker_url, "smtp_url": smtp_url}
    own = {
        "email_from": "shop@shop.example.com",
        "hash_key": "a key of sixteen or more",
        "bounce_address": "bounces@shop.example.com",
        "public_url": "https://notify.example.com",
    }
    notifier = CommandLine(settings | own | {"encryption_keys": new_key("one")})
    notifier("queues", "declare")
    answer = notifier("doctor")
    assert answer.code == 0, answer.out
    # No producer is proven: by nothing on Redis, and by nothing that is configured on RabbitMQ.
    warnings = [line for line in answer.out.splitlines() if not line.startswith("✓ ")]
    assert [line.partition(": ")[0] for line in warnings] == ["! producers"]
    assert answer.err.endswith(" checks, none failed, 1 warning (!)\n")
    names = {check["name"] for check in doctor(notifier)}
    assert names >= {"settings", "database", "tables", "partitions", "broker", "queues", "templates", "senders"}


@pytest.fixture
def smtp_url() -> Iterator[str]:
    with running(MailServer()) as server:
        yield f"smtp://127.0.0.1:{server.port}"


def test_doctor_goes_on_after_each_failure(empty_database_url: str) -> None:
    settings = {"broker_url": "redis://127.0.0.1:1/0", "smtp_url": "smtp://127.0.0.1:1"}
    notifier = CommandLine({"database_url": empty_database_url, **settings})
    assert notifier("doctor").code == 1
    checks = doctor(notifier)
    assert {check["name"]: check["ok"] for check in checks} == {
        "settings": True,
        "database": True,
        "tables": False,
        "broker": False,
        "producers": True,
        "templates": True,
        "provider smtp": False,
        "senders": True,
        "bounces": True,
    }
    assert all(check["fix"] for check in checks if not check["ok"])
    assert named(checks, "tables")["fix"] == "notifier db upgrade"


def test_doctor_finds_queues_that_are_missing(amqp_url: str) -> None:
    wrong = [check for check in doctor(CommandLine({"broker_url": amqp_url})) if check["name"] == "queues"]
    assert {check["fix"] for check in wrong} == {"notifier queues declare"}
    assert wrong[0]["detail"].startswith("missing: notify, notify.dead, ")


def test_doctor_asks_for_a_sender_of_every_channel(tmp_path: Path) -> None:
    empty = tmp_path / "notifier.toml"
    empty.touch()
    secrets = {
        "twilio_account_sid": "AC" + "0" * 32,
        "twilio_auth_token": "x",
        "twilio_api_base": "http://127.0.0.1:1",
    }
    checks = doctor(CommandLine({**secrets, "config": empty}))
    assert "NOTIFIER_TWILIO_FROM" in named(checks, "senders")["fix"]


def test_doctor_names_the_setting_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_LEASE_SECONDS", "soon")
    [check] = doctor(CommandLine())
    assert (check["name"], check["ok"]) == ("settings", False)
    assert "NOTIFIER_LEASE_SECONDS" in check["detail"]
