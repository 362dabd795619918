"""Ids and ages go by the database's clock, whatever the machine's shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from notifier.domain.message import time_of_id
from notifier.store.clock import MEASURED_SECONDS, clock_of
from notifier.store.engine import database_now, transaction
from tests.support.clocks import Clocks, find_faketime
from tests.support.templates import write_templates

Do = Callable[[str], list[float]]
#: Everything whose ids the service makes itself.
TABLES = ("notifications", "rejected_messages", "suppressions", "attachments", "operator_records")


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    library = find_faketime()
    if library is None:
        pytest.skip("steps clocks with libfaketime, on Linux only: install Debian's libfaketime")
    return Clocks(library, tmp_path / "clocks")


@pytest.fixture
def do(database_url: str, tmp_path: Path, clocks: Clocks) -> Iterator[Do]:
    """Has an intake work under the clock of its name; it answers (its time, accepted, rejected)."""
    templates = write_templates(tmp_path / "templates")
    program = [sys.executable, str(Path(__file__).with_name("clocked_intake.py")), database_url, str(templates)]
    environment = {**os.environ, **clocks.environment("intake")}
    with subprocess.Popen(
        program,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as intake:
        assert intake.stdin
        assert intake.stdout
        stdin, stdout = intake.stdin, intake.stdout

        def ask(step: str) -> list[float]:
            stdin.write(f"{step}\n")
            stdin.flush()
            answer: list[float] = json.loads(stdout.readline())
            return answer

        yield ask


def test_an_intake_whose_clock_is_months_wrong_makes_ids_of_now(do: Do, clocks: Clocks, engine: Engine) -> None:
    begun = datetime.now(UTC)
    steps = {"right": 0, "ahead": 24 * 150, "behind": -24 * 400}
    for step, hours in steps.items():
        clocks.step("intake", hours=hours)
        shown, accepted, rejected = do(step)
        assert abs(shown - time.time() - hours * 3600) < 60
        # What a machine of such a clock makes as an id is refused; what it makes for the record is right.
        assert (accepted, rejected) == ((2, 1) if step == "right" else (1, 2))
    with transaction(engine) as connection:
        faults = connection.execute(
            text("SELECT faults->0->>'problem' FROM rejected_messages ORDER BY id")
        ).scalars()
        told = [fault for fault in faults if fault.startswith("the time")]
        ids = [id_ for table in TABLES for id_ in connection.execute(text(f"SELECT id FROM {table}")).scalars()]
        places = connection.execute(text("SELECT DISTINCT tableoid::regclass::text FROM messages")).scalars()
        assert "messages_default" not in places.all()
    assert told == [
        "the time inside the UUIDv7 is 150.0 days ahead of the service's clock; it may be 1 ahead or 31 behind",
        "the time inside the UUIDv7 is 400.0 days behind the service's clock; it may be 1 ahead or 31 behind",
    ]
    assert len(ids) > len(TABLES) * len(steps)
    for id_ in ids:
        assert begun - timedelta(seconds=2) < time_of_id(id_) < datetime.now(UTC) + timedelta(seconds=2)


def test_it_is_asked_every_few_seconds_and_with_each_new_connection(engine: Engine) -> None:
    clock = clock_of(engine)
    assert clock.is_due
    before = datetime.now(UTC)
    assert abs(database_now(engine) - before) < timedelta(seconds=1)
    assert not clock.is_due
    assert MEASURED_SECONDS < 10
    with engine.connect() as connection:
        assert clock_of(connection) is clock
        # A second connection at once, which is a new one.
        with engine.connect() as other:
            assert clock.now() <= other.execute(text("SELECT clock_timestamp()")).scalar_one()
    clock.expect_another()
    assert clock.is_due
    assert database_now(engine) > before
    assert not clock.is_due


def test_what_is_asked_leaves_no_transaction_behind(engine: Engine) -> None:
    database_now(engine)
    with engine.connect() as connection:
        state = connection.connection.driver_connection.info.transaction_status.name  # type: ignore[union-attr]
        assert state == "IDLE"
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
        assert connection.in_transaction()
