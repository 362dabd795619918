"""Steps of upkeep on a real Postgres: each stands alone, and what was missed is made up for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from notifier.bootstrap import Services
from notifier.cli.upkeep_checks import check_upkeep
from notifier.config.settings import Settings
from notifier.domain.errors import NotFound, ServiceUnavailable
from notifier.operations.upkeep import NIGHTLY, Upkeep
from notifier.store.engine import transaction
from notifier.store.operator_actions import OperatorActions
from notifier.store.operator_log import OperatorLog, RecordFilter
from notifier.store.schema.partitions import PARTITIONED, Month, missing_partitions
from notifier.store.upkeep import AGAIN_HOURS, LATE_HOURS, UpkeepRepository
from notifier.worker.app import make_app
from notifier.worker.names import LATE_UPKEEP, PARTITIONS, RECURRING, RETENTION
from tests.unit.cli.commandline import CommandLine


class Steps:
    """Three steps that note that they were done; those that are broken fail."""

    def __init__(self, engine: Engine) -> None:
        self.done: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.book = UpkeepRepository(engine)
        names = ("first", "second", "third")
        work = {name: lambda name=name: self._work(name) for name in names}
        self.upkeep = Upkeep(self.book, work, OperatorActions(engine))

    def _work(self, name: str) -> int:
        self.done.append(name)
        if name in self.broken:
            raise self.broken[name]
        return len(self.done)


@pytest.fixture
def services(database_url: str) -> Iterator[Services]:
    made = Services(Settings(database_url=SecretStr(database_url)), pool_size=8)
    yield made
    made.close()


@pytest.fixture
def steps(services: Services) -> Steps:
    return Steps(services.engine)


def execute(services: Services, statement: str, **values: Any) -> list[Any]:
    with transaction(services.engine) as connection:
        result = connection.execute(text(statement), values)
        return list(result) if result.returns_rows else []


def pass_hours(services: Services, hours: float) -> None:
    """As if they had passed since all that is recorded."""
    moved = ", ".join(
        f"{column} = {column} - make_interval(secs => :seconds)"
        for column in ("started_at", "last_success_at", "last_failure_at")
    )
    execute(services, f"UPDATE upkeep_runs SET {moved}", seconds=hours * 3600)


def told(services: Services) -> list[tuple[bool, str]]:
    return [(check.ok, check.detail) for check in check_upkeep(services)]


def test_a_step_that_fails_is_told_and_stops_no_other(steps: Steps, services: Services) -> None:
    steps.broken["first"] = ServiceUnavailable("the disk is full")
    steps.broken["second"] = KeyError("ann@example.com")
    found = steps.upkeep.run(["first", "second", "third"])
    assert found == {
        "first": {"failed": "the disk is full"},
        "second": {"failed": "KeyError, see the worker's log"},
        "third": 3,
    }
    states = {state.step: state for state in steps.book.states()}
    assert [states[name].failure for name in ("first", "second", "third")] == [
        "the disk is full",
        "KeyError, see the worker's log",
        None,
    ]
    assert [states[name].last_success_at is not None for name in ("first", "second", "third")] == [
        False,
        False,
        True,
    ]
    assert told(services) == [
        (False, "first has never succeeded; the last run failed: the disk is full"),
        (False, "second has never succeeded; the last run failed: KeyError, see the worker's log"),
    ]


def test_what_was_not_done_at_its_hour_is_done_when_it_is_late(steps: Steps, services: Services) -> None:
    # A new record: nothing was ever done. One step at a time.
    assert [steps.upkeep.run_late() for _ in range(4)] == [{"first": 1}, {"second": 2}, {"third": 3}, {}]
    pass_hours(services, LATE_HOURS - 1)
    assert steps.upkeep.run(["second"]) == {"second": 4}
    assert steps.upkeep.run_late() == {}
    assert told(services) == [(True, "3 steps, each done within the last day")]
    pass_hours(services, 2)
    assert told(services) == [
        (False, "first: last success 1 day ago"),
        (False, "third: last success 1 day ago"),
    ]
    assert [steps.upkeep.run_late() for _ in range(3)] == [{"first": 5}, {"third": 6}, {}]
    pass_hours(services, 24 * 3)
    assert (False, "first: last success 3 days ago") in told(services)


def test_a_step_that_failed_is_tried_again_each_hour(steps: Steps, services: Services) -> None:
    steps.upkeep.run(["first", "second", "third"])
    pass_hours(services, LATE_HOURS + 1)
    steps.upkeep.run(["second", "third"])
    steps.broken["first"] = ServiceUnavailable("tables are in use")
    assert steps.upkeep.run_late() == {"first": {"failed": "tables are in use"}}
    assert steps.upkeep.run_late() == {}
    assert told(services) == [(False, "first: last success 1 day ago; the last run failed: tables are in use")]
    pass_hours(services, AGAIN_HOURS)
    steps.broken.clear()
    assert list(steps.upkeep.run_late()) == ["first"]
    assert told(services) == [(True, "3 steps, each done within the last day")]


def test_a_step_that_an_operator_asked_for_is_run_once(steps: Steps, services: Services) -> None:
    steps.upkeep.ask("first", operator="ann")  # it never ran, so it is late already
    assert [steps.upkeep.run_late() for _ in range(4)] == [{"first": 1}, {"second": 2}, {"third": 3}, {}]
    steps.upkeep.ask("second", operator="ann", reason="after the repair")
    assert [state.step for state in steps.book.states() if state.is_asked] == ["second"]
    assert [steps.upkeep.run_late() for _ in range(2)] == [{"second": 4}, {}]
    with pytest.raises(NotFound):
        steps.upkeep.ask("fourth", operator="ann")
    found = execute(services, "SELECT operator, action, selection, reason FROM operator_records ORDER BY at")
    assert [tuple(row) for row in found] == [
        ("ann", "run_step", {"step": "first"}, None),
        ("ann", "run_step", {"step": "second"}, "after the repair"),
    ]


def test_a_late_step_is_done_by_one_of_many(steps: Steps, services: Services) -> None:
    barrier = threading.Barrier(6)

    def look() -> None:
        barrier.wait()
        steps.upkeep.run_late()

    for _ in range(2):
        threads = [threading.Thread(target=look) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(steps.done) == ["first", "second", "third"]
        steps.done.clear()
        pass_hours(services, LATE_HOURS + 1)


def test_a_step_is_done_where_it_may_not_be_recorded(steps: Steps, services: Services) -> None:
    execute(services, "DROP TABLE upkeep_runs")
    assert steps.upkeep.run(["first", "second"]) == {"first": 1, "second": 2}


def test_the_tasks_of_a_worker_do_every_step(services: Services, redis_broker_url: str) -> None:
    settings = services.settings.model_copy(update={"broker_url": SecretStr(redis_broker_url)})
    app = make_app(settings)
    month = Month.of(services.audit.now(), 1)
    for table in PARTITIONED:
        execute(services, f"DROP TABLE {month.partition(table)}")
    # It cannot be made as long as this is in its place.
    execute(services, f"CREATE TABLE {month.partition('events')} (note text)")
    done = app.tasks[PARTITIONS]()
    assert tuple(done) == NIGHTLY
    assert month.name in done["partitions"]["failed"]
    assert not any("failed" in str(done[name]) for name in NIGHTLY[1:])
    execute(services, f"DROP TABLE {month.partition('events')}")
    pass_hours(services, AGAIN_HOURS)
    late = app.tasks[LATE_UPKEEP]()
    assert late == {"partitions": [month.partition(table) for table in PARTITIONED]}
    assert missing_partitions(services.engine) == []
    assert app.tasks[RETENTION]().keys() == {"retention"}
    assert app.tasks[RECURRING]() == {"accepted": 0, "refused": 0}
    assert app.tasks[LATE_UPKEEP]() == {"statistics": []}
    assert app.tasks[LATE_UPKEEP]() == {}
    assert told(services) == [(True, "9 steps, each done within the last day")]
    app.close()


def test_the_schedule_says_how_each_step_ran_and_runs_one_now(services: Services, database_url: str) -> None:
    notifier = CommandLine({"database_url": SecretStr(database_url), "timezone": "Asia/Shanghai"})
    before = {step["name"]: step for step in notifier("schedule", "list", "--json").json}
    assert list(before) == ["statistics", *NIGHTLY, "retention"]
    assert before["retention"]["when"] == "every day at 03:37 Asia/Shanghai"
    assert [step["last_success_at"] for step in before.values()] == [None] * 9
    month = Month.of(services.audit.now(), 1).partition("events")
    execute(services, f"DROP TABLE {month}")
    assert notifier("schedule", "run", "partitions").out.endswith(f"partitions is done\n  {month}\n")
    by_hand = notifier("schedule", "run", "rate_slots", "--why", "a look", "--json")
    assert by_hand.json == {"step": "rate_slots", "done": 0}
    [record] = OperatorLog(services.engine).page(RecordFilter(action="run_step"), limit=1)
    assert (record.selection, record.reason, record.finished_at is not None) == (
        {"step": "rate_slots"},
        "a look",
        True,
    )
    execute(services, "DROP TABLE daily_statistics")
    failed = notifier("schedule", "run", "statistics")
    assert failed.code == 1
    assert "notifier db upgrade" in failed.err
    after = {step["name"]: step for step in notifier("schedule", "list", "--json").json}
    assert [name for name, step in after.items() if step["last_success_at"]] == ["partitions", "rate_slots"]
    assert [name for name, step in after.items() if step["is_late"]] == ["statistics"]
    assert "notifier db upgrade" in after["statistics"]["failure"]
    next_run = datetime.fromisoformat(after["partitions"]["next_run_at"]).astimezone(ZoneInfo("Asia/Shanghai"))
    assert (next_run.hour, next_run.minute) == (3, 7)
    assert services.audit.now() < next_run <= services.audit.now() + timedelta(days=1)
    unknown = notifier("schedule", "run", "sweep")
    assert unknown.code == 1
    assert "use one of partitions, " in unknown.err


def test_a_step_that_is_late_is_said_to_run_soon(steps: Steps, services: Services) -> None:
    upkeep = Upkeep(steps.book, {"statistics": lambda: 0}, OperatorActions(services.engine))
    upkeep.run(["statistics"])
    pass_hours(services, LATE_HOURS + 1)
    (step,) = upkeep.schedule(ZoneInfo("UTC"))
    assert step.is_late
    assert step.next_run_at <= services.audit.now()
    upkeep.run_late()
    (step,) = upkeep.schedule(ZoneInfo("UTC"))
    assert not step.is_late
    assert step.next_run_at.hour == 0
