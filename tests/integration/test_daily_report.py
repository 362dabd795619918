"""The daily report: accepted once for each recipient, whatever runs twice, with what was counted in it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from notifier.bootstrap import Services
from notifier.cli.upkeep_checks import check_upkeep
from notifier.config.settings import Settings
from notifier.domain.statuses import Channel
from notifier.operations.daily_report import PRODUCER, TEMPLATE
from notifier.operations.upkeep import AFTER_MIDNIGHT
from notifier.store.engine import transaction
from notifier.store.filters import Filter
from notifier.store.search import NotificationView
from tests.integration.test_retention import Past

RECIPIENTS = "ops@example.com, lead@example.com"


def services_of(url: str, **more: Any) -> Services:
    fields: dict[str, Any] = {"report_recipients": RECIPIENTS} | more
    # No task is published, so nobody connects to the broker.
    broker = SecretStr("redis://127.0.0.1:1/0")
    return Services(Settings(database_url=SecretStr(url), broker_url=broker, **fields), pool_size=4)


@pytest.fixture
def services(database_url: str) -> Iterator[Services]:
    made = services_of(database_url)
    yield made
    made.close()


@pytest.fixture
def past(database_url: str) -> Iterator[Past]:
    made = Past(database_url)
    yield made
    made.engine.dispose()


def reports(services: Services) -> list[NotificationView]:
    return services.audit.search(Filter(producer=PRODUCER))


def test_each_recipient_gets_one_report_of_a_day(services: Services, past: Past) -> None:
    accepted = past.accept(1)
    past.accept(1, Channel.SMS, "failed")
    past.accept(3)
    done = services.upkeep.run(AFTER_MIDNIGHT)
    assert set(done["report"]) == {"day"}
    found = reports(services)
    assert sorted(str(one.recipient) for one in found) == ["lead@example.com", "ops@example.com"]
    assert {(one.template, one.status, one.proof) for one in found} == {(TEMPLATE, "queued", "service")}
    assert "@" not in str(found[0].idempotency_key)
    # The sweep sends them at once, not when their lane's time for lost tasks is over.
    assert all(one.due_at is not None and (one.due_at - one.accepted_at).total_seconds() < 30 for one in found)
    # Again with other counts, and by several at once.
    past.execute("UPDATE states SET status = 'delivered' WHERE id = :id", id=accepted)
    threads = [threading.Thread(target=services.upkeep.run, args=(AFTER_MIDNIGHT,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert services.upkeep.run(AFTER_MIDNIGHT)["report"] == done["report"]
    assert len(reports(services)) == 2


def test_a_report_shows_what_was_counted(services: Services, past: Past) -> None:
    for _ in range(3):
        past.accept(1)
    past.accept(1, Channel.SMS, "failed")
    past.accept(2)
    services.upkeep.run(AFTER_MIDNIGHT)
    with transaction(services.engine) as connection:
        context = connection.execute(
            text("SELECT context FROM messages WHERE producer = :name LIMIT 1"), {"name": PRODUCER}
        ).scalar_one()
    shown = services.renderer.render(Channel.EMAIL, TEMPLATE, None, context)
    assert shown.subject is not None
    assert shown.subject.endswith(": 4")
    first, lane = "4 notifications were accepted on ", "  normal, sms: 1, 0 % sent within 10 s\n"
    for line in (first, lane, "  sent, email: 3\n", "  failed, sms: 1\n", "  shop: 4\n"):
        assert line in shown.text
    assert shown.html is not None
    bars = re.findall(r'<td width="(\d+)%" bgcolor="(#\w+)"', shown.html)
    sent, ended, rest = "#0f6b4f", "#b3402e", "#f0ece4"
    assert bars[-5:] == [("24", sent), ("76", rest), ("72", sent), ("24", ended), ("4", rest)]
    assert bars[:-5] == [("100", rest)] * 5


def test_what_stands_in_its_way_is_said(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "email").mkdir()
    services = services_of(database_url, templates=tmp_path)
    failed = services.upkeep.run(["report"])["report"]["failed"]
    assert "has not been counted: notifier schedule run statistics" in failed
    failed = services.upkeep.run(AFTER_MIDNIGHT)["report"]["failed"]
    assert failed.count("there is no email template 'daily_report'") == 1
    services.close()
    services = services_of(database_url, report_recipients="")
    assert set(services.upkeep.run(AFTER_MIDNIGHT)) == {"statistics"}
    # What is not wanted any more is not missed.
    assert all(check.ok for check in check_upkeep(services))
    services.close()


def test_a_slip_in_an_address_ends_a_program_at_its_start() -> None:
    with pytest.raises(ValueError, match="takes addresses separated by commas"):
        Settings(report_recipients="ops@example.com; lead@example.com")
