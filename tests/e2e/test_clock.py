"""The database's clock decides: those of the programs may be stepped by an hour while they work.

Every program has a clock of its own here, so that they disagree with each other by up to two hours, too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from notifier import Client
from notifier.dev.programs import PROGRAMS
from notifier.dev.smtp_server import Rule
from notifier.domain.statuses import Channel, Lane
from notifier.rendering import Renderer
from notifier.store.search import Filter, Story
from tests.profiles import brokers, full_only
from tests.provisioning.install import apt_install, can_apt_install
from tests.support.clocks import Clocks, find_faketime
from tests.support.service import Service, running_service
from tests.waiting import patient, wait_until

CONTEXT = Renderer(Path(__file__).parents[2] / "templates").template(Channel.EMAIL, "receipt").samples[0].context
#: Program → hours. The sweep runs in either worker, on the ticks of a Beat that is behind both first, then ahead.
STEPS: list[Mapping[str, int]] = [
    {"intake": 1, "beat": -1, "worker-urgent": 1, "worker-normal": 0},
    {"intake": -1, "beat": 1, "worker-urgent": -1, "worker-normal": 0},
]
#: In hand while clocks are stepped; refused once; due in a moment; good for some minutes; for the other worker.
ARRIVING = ("slow", "later", "scheduled", "short", "plain")
#: Over at the moment in which it is due.
STALE = "stale"
RULES = [
    Rule("slow*", stage="body", delay_seconds=1.0),
    Rule("later*", reply="451 4.3.0 try later", times=1),
]
EACH = 4
#: Nobody may wait for a wrong clock to come right, which would be an hour.
LATE_SECONDS = 40.0

# A program whose clock is stepped asks a file what time it is, tens of thousands of times. In the quick profile
# tests/integration/test_database_clock.py has wrong clocks, one program each.
pytestmark = [
    pytest.mark.timeout(240),
    full_only,
]


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    if find_faketime() is None and can_apt_install():
        apt_install("libfaketime")
    library = find_faketime()
    if library is None:
        pytest.skip("steps clocks with libfaketime, on Linux only: install Debian's libfaketime")
    return Clocks(library, tmp_path / "clocks")


@contextmanager
def running_under(clocks: Clocks, database_url: str, broker_url: str, folder: Path) -> Iterator[Service]:
    own = {name: clocks.environment(name) for name in PROGRAMS if name != "callbacks"}
    with running_service(database_url, broker_url, folder, mail_rules=RULES, own=own) as service:
        yield service


def publish_all(service: Service, label: str) -> None:
    """`EACH` of every kind."""
    with Client(service.broker_url, producer="shop", timeout_seconds=10) as client:
        for number in range(EACH):
            now = datetime.now(UTC)
            times: dict[str, dict[str, Any]] = {
                "scheduled": {"send_at": now + timedelta(seconds=2)},
                "short": {"expires_at": now + timedelta(minutes=20)},
                STALE: {
                    "send_at": now + timedelta(seconds=2),
                    "expires_at": now + timedelta(seconds=2, microseconds=1),
                },
            }
            for kind in (*ARRIVING, STALE):
                client.send(
                    "receipt",
                    f"{kind}{number}.{label}@example.com",
                    context=CONTEXT,
                    lane=Lane.NORMAL if kind == "plain" else Lane.URGENT,
                    reference=kind,
                    **times.get(kind, {}),
                )


def wait_for_rest(service: Service, each: int) -> None:
    wanted = {"sent": each * len(ARRIVING), "expired": each}

    def is_at_rest() -> bool:
        found: Counter[str] = Counter()
        for row in service.audit.count():
            found[row.status] += row.count
        return found == wanted

    wait_until(is_at_rest, timeout=60)


def stories(service: Service, kind: str) -> list[Story]:
    return [service.audit.story(row.id) for row in service.audit.search(Filter(reference=kind), limit=200)]


def shown_times(log: Path) -> Iterator[datetime]:
    """What the program's clock showed whenever it logged."""
    for line in log.read_text().splitlines():
        if line.startswith("{"):
            yield datetime.fromisoformat(json.loads(line)["timestamp"])


@pytest.mark.parametrize("broker_url", brokers(), indirect=True)
def test_clocks_stepped_by_an_hour_lose_and_double_nothing(
    database_url: str, broker_url: str, tmp_path: Path, clocks: Clocks
) -> None:
    begun = datetime.now(UTC)
    with running_under(clocks, database_url, broker_url, tmp_path / "service") as service:
        for number, step in enumerate(STEPS):
            publish_all(service, f"before{number}")
            wait_until(lambda: service.count("sending") > 0, timeout=60)
            for name, hours in step.items():
                clocks.step(name, hours=hours)
            publish_all(service, f"after{number}")
            wait_for_rest(service, 2 * EACH * (number + 1))
        seen = {name: list(shown_times(log)) for name, log in service.programs.logs.items()}
        assert_each_arrived_once(service)
        assert_times_are_the_databases(service)
        assert_doctor_names_it(clocks.environment("doctor"), clocks, database_url)
    # It was real: these have lived in both hours, by their own logs. Beat logs nothing.
    for name in ("intake", "worker-urgent"):
        assert min(seen[name]) < begun - timedelta(minutes=50)
        assert max(seen[name]) > begun + timedelta(minutes=50)


def assert_each_arrived_once(service: Service) -> None:
    arrived = Counter(mail.rcpt_to[0] for mail in service.mail.messages)
    assert set(arrived.values()) == {1}
    assert len(arrived) == service.count("sent")
    tries = {"later": ["unavailable", "accepted"], STALE: []}
    for kind in (*ARRIVING, STALE):
        for story in stories(service, kind):
            # No lease was taken for over: that would be an unknown attempt, or a second one.
            assert [attempt.outcome for attempt in story.attempts] == tries.get(kind, ["accepted"]), story


def assert_times_are_the_databases(service: Service) -> None:
    late = timedelta(seconds=min(patient(LATE_SECONDS), 1800))
    for story in stories(service, "scheduled"):
        row = story.notification
        assert row.send_at
        assert row.sent_at
        assert row.send_at <= row.sent_at < row.send_at + late
    for story in stories(service, "later"):
        first, second = story.attempts
        assert first.finished_at
        assert first.finished_at <= second.started_at < first.finished_at + late
    for story in stories(service, STALE):
        assert story.notification.status == "expired"
        assert story.notification.expires_at
        assert story.notification.updated_at < story.notification.expires_at + late


def assert_doctor_names_it(environment: Mapping[str, str], clocks: Clocks, database_url: str) -> None:
    clocks.step("doctor", hours=1)
    given = os.environ | environment | {"NOTIFIER_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "notifier", "doctor", "--json"]
    answer = subprocess.run(command, env=given, capture_output=True, check=False, timeout=patient(30))
    [check] = [one for one in json.loads(answer.stdout) if one["name"] == "clock"]
    assert not check["ok"]
    assert re.search(r" (3599|3600|3601) s ahead of the database's: .* UTC$", check["detail"])
