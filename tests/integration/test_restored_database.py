"""A database that was restored from a backup: noticed, held, released. By the real pg_dump, where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, text

from notifier import Client
from notifier.bootstrap import Services
from notifier.cli.checks import check_identity
from notifier.config.settings import load_settings
from notifier.domain.errors import DatabaseChanged, WrongSelection
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, JobState, Lane, OnUnknown, Outcome, Status
from notifier.operations import Operations, Selection
from notifier.operations.api_keys import Scope
from notifier.operations.jobs import Jobs
from notifier.operations.restored import Restored
from notifier.rendering import Renderer
from notifier.security.recipient_hash import HashKey
from notifier.store.callbacks import CallbackRepository
from notifier.store.engine import database_verdict, make_engine, transaction
from notifier.store.identity import SeenTimeline, judge
from notifier.store.jobs import JobRepository
from notifier.store.ledger import Ledger
from notifier.store.operator_actions import OperatorActions
from notifier.store.records import DeliveryResult, NewAttempt, NewNotification, NotificationToSend
from notifier.store.restored import SKIPPED_NUMBERS, RestoredRepository
from notifier.store.schema.upgrade import upgrade
from notifier.store.search import Audit, Filter
from notifier.store.stuck import Cause, Lateness
from tests.provisioning.databases import Databases, database_of
from tests.provisioning.services import find_postgres
from tests.support.api import Api
from tests.support.columns import set_columns
from tests.support.service import running_service
from tests.support.templates import write_templates
from tests.unit.cli.commandline import CommandLine
from tests.waiting import patient, wait_until

COUNT = 60
CONTEXT = json.dumps(
    Renderer(Path(__file__).parents[2] / "templates").template(Channel.EMAIL, "receipt").samples[0].context
)
HOLDER: dict[str, Any] = {"operator": "ann"}


class Life:
    """A service on one database, without its processes: what it accepts, sends and does in operators' names."""

    def __init__(self, url: str, *, guarded: bool = True) -> None:
        self.engine = make_engine(url, pool_size=4, guarded=guarded)
        self.ledger = Ledger(self.engine)
        self.audit = Audit(self.engine)
        operator_actions = OperatorActions(self.engine)
        self.restored = Restored(RestoredRepository(self.engine, HashKey()), operator_actions)
        self.operations = Operations(operator_actions, Lateness(self.engine))

    def accept(self, count: int = 1, **fields: Any) -> list[UUID]:
        given = {"producer": "shop", "to": "ann@example.com", "template": "receipt", **fields}
        new = [
            NewNotification(
                Message(id=new_id(), **given), Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.HOLD, position
            )
            for position in range(count)
        ]
        return [answer.id for answer in self.ledger.accept(new)]

    def start(self, ids: list[UUID]) -> list[NotificationToSend]:
        claimed = self.ledger.claim(ids, lease_seconds=60)
        calls = [NewAttempt(one, "relay") for one in claimed]
        assert len(self.ledger.start_attempts(calls, margin_seconds=1)) == len(claimed)
        return claimed

    def send(self, ids: list[UUID]) -> int:
        """What a worker does with a task that carries these. Returns how many mails went out."""
        claimed = self.start(ids)
        self.ledger.finish([sent(one) for one in claimed])
        return len(claimed)

    def sweep(self) -> list[UUID]:
        return [due.id for due in self.ledger.take_due(limit=1000, unknown_after_seconds=30)]

    def pass_time(self) -> None:
        with transaction(self.engine) as connection:
            connection.execute(text("UPDATE states SET due_at = now() WHERE due_at IS NOT NULL"))

    def statuses(self) -> dict[str, int]:
        return {row.status: row.count for row in self.audit.count()}


def sent(one: NotificationToSend) -> DeliveryResult:
    return DeliveryResult(
        one.id, one.claim, Status.SENT, number=one.attempt_count + 1, outcome=Outcome.ACCEPTED, provider="relay"
    )


@pytest.fixture
def identified_url(databases: Databases, database_url: str) -> str:
    """A database that says which one it is: the tests' template says nothing, for all of them are copies of it."""
    identify(database_url)
    return database_url


def identify(url: str) -> None:
    engine = make_engine(url)
    verdict = database_verdict(engine)
    assert verdict is not None
    RestoredRepository(engine, HashKey()).accept(verdict)
    engine.dispose()


@pytest.fixture
def life(identified_url: str) -> Iterator[Life]:
    life = Life(identified_url)
    yield life
    life.engine.dispose()


class Backup:
    """A dump of the database, by pg_dump or by a copy of it."""

    def __init__(self, databases: Databases, url: str, folder: Path) -> None:
        self._databases, self._url, self._file = databases, url, folder / "dump"
        self._copy: str | None = None
        binaries = find_postgres()
        self._dump = shutil.which("pg_dump", path=str(binaries)) if binaries else None
        if self._dump:
            subprocess.run([self._dump, "-Fc", "-f", self._file, plain(url)], check=True, timeout=patient(60))
        else:
            self._copy = databases.copy(url)

    def restore(self) -> str:
        """URL of a database with what it had then."""
        if self._copy is not None:
            return self._copy
        assert self._dump is not None
        url = self._databases.make_empty()
        restore = str(Path(self._dump).with_name("pg_restore"))
        subprocess.run([restore, "--no-owner", "-d", plain(url), self._file], check=True, timeout=patient(60))
        return url


def plain(url: str) -> str:
    return url.replace("+psycopg", "")


@pytest.fixture
def second(life: Life, databases: Databases, identified_url: str, tmp_path: Path) -> Iterator[Life]:
    """A second life: 60 were queued when the backup was made, and all of them were sent after it."""
    ids = life.accept(COUNT)
    backup = Backup(databases, identified_url, tmp_path)
    life.engine.dispose()  # a copy ends every connection to the original
    assert life.send(ids) == COUNT
    url = backup.restore()
    second = Life(url)
    yield second
    second.engine.dispose()
    databases.drop(url)


def held_of(life: Life) -> Life:
    """Who acts for an operator looks at any database."""
    return Life(life.engine.url.render_as_string(hide_password=False), guarded=False)


def test_a_restored_backup_is_noticed_and_sends_nothing_again_before_it_is_released(second: Life) -> None:
    operator = held_of(second)
    ids = [row.id for row in operator.audit.search(Filter(), limit=200)]
    assert len(ids) == COUNT
    for work in (
        lambda: second.send(ids),
        second.sweep,
        second.accept,
        lambda: CallbackRepository(second.engine).give_out(),
    ):
        with pytest.raises(DatabaseChanged, match="notifier db after-restore"):
            work()
    seen = operator.restored.hold(dry_run=True, **HOLDER)
    assert (seen.held, [(group.status, group.count) for group in seen.groups]) == (COUNT, [("queued", COUNT)])
    assert any("oid" in difference for difference in seen.differences)
    assert operator.restored.hold(reason="the disk died", **HOLDER).held == COUNT
    # The connections of before notice it by themselves.
    assert second.send(ids) == 0
    second.pass_time()
    assert second.sweep() == []
    assert second.statuses() == {"unknown": COUNT}
    assert operator.restored.release(Filter(), ids[:2], reason="not sent", **HOLDER).released == 2
    due = second.sweep()
    assert sorted(due) == sorted(ids[:2])
    assert second.send(due) == 2
    assert second.send(ids) == 0
    assert second.statuses() == {"sent": 2, "unknown": COUNT - 2}
    operator.engine.dispose()


def test_a_repeat_of_a_producer_is_still_a_duplicate_when_it_is_held(life: Life) -> None:
    message = Message(idempotency_key="order-1", producer="shop", to="ann@example.com", template="receipt")
    new = NewNotification(message, Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.HOLD, 0)
    (first,) = life.ledger.accept([new])
    life.restored.hold(**HOLDER)
    (again,) = life.ledger.accept([new])
    assert (again.id, again.is_duplicate) == (first.id, True)
    assert life.statuses() == {"unknown": 1}


@pytest.fixture
def every(life: Life) -> dict[str, UUID]:
    """One in each status that is on its way, and two that are not."""
    names = ("scheduled", "queued", "retrying", "claimed", "called", "unknown", "sent", "over", "scheduled_over")
    found = {name: life.accept()[0] for name in names}
    life.send([found["sent"]])
    life.start([found["called"]])
    life.ledger.claim([found["claimed"]], lease_seconds=60)
    (one,) = life.start([found["unknown"]])
    life.ledger.finish(
        [
            DeliveryResult(
                one.id,
                one.claim,
                Status.UNKNOWN,
                due_in_seconds=0,
                number=1,
                outcome=Outcome.UNKNOWN,
                provider="relay",
            )
        ]
    )
    now, later = "sql: now()", "sql: now() + interval '1 hour'"
    changes: dict[str, dict[str, str]] = {
        "scheduled": {"status": "scheduled", "send_at": later, "due_at": later},
        "retrying": {"status": "retrying", "due_at": now},
        "over": {"expires_at": now},
        "scheduled_over": {"status": "scheduled", "send_at": now, "due_at": now, "expires_at": now},
    }
    for name, columns in changes.items():
        with transaction(life.engine) as connection:
            set_columns(connection, [found[name]], **columns)
    return found


def statuses_of(life: Life, ids: dict[str, UUID]) -> dict[str, tuple[str, str | None]]:
    rows = {name: life.audit.story(value).notification for name, value in ids.items()}
    return {name: (str(row.status), row.reason) for name, row in rows.items()}


def test_everything_on_its_way_is_held_and_says_why(life: Life, every: dict[str, UUID]) -> None:
    assert life.restored.hold(reason="drill", **HOLDER).held == 8
    found = statuses_of(life, every)
    assert found.pop("sent") == ("sent", None)
    assert set(found.values()) == {("unknown", "restored")}
    # Neither a task of the first life, nor a look-up of it, nor a result of it moves one.
    ids = list(every.values())
    assert life.ledger.claim(ids, lease_seconds=60) == []
    assert life.ledger.unknown_attempts(ids) == []
    life.ledger.finish([DeliveryResult(every["claimed"], 1, Status.RETRYING, due_in_seconds=0)])
    assert statuses_of(life, every)["claimed"] == ("unknown", "restored")
    story = life.audit.story(every["called"])
    assert [attempt.outcome for attempt in story.attempts] == ["unknown"]
    assert any(
        "held after the database was restored by ann: drill" in (event.detail or "") for event in story.events
    )
    assert [(late.late.cause, late.late.count) for late in life.operations.stuck()] == [(Cause.RESTORED, 8)]
    assert life.restored.hold(**HOLDER).held == 0


def test_what_is_released_goes_on_from_where_it_was(life: Life, every: dict[str, UUID]) -> None:
    life.restored.hold(**HOLDER)
    done = life.restored.release(Filter(), everything=True, **HOLDER)
    assert (done.released, done.expired, done.skipped) == (6, 2, 0)
    found = statuses_of(life, every)
    assert {found.pop("over"), found.pop("scheduled_over")} == {("expired", "expired")}
    # The provider may have these: they are looked up first.
    assert {found.pop("called"), found.pop("unknown")} == {("unknown", "outcome_unknown")}
    assert {one.id for one in life.ledger.unknown_attempts(list(every.values()))} == {
        every["called"],
        every["unknown"],
    }
    assert found.pop("sent") == ("sent", None)
    assert set(found.values()) == {("retrying", "operator")}
    # Not before its time.
    assert set(life.sweep()) == {every["queued"], every["retrying"], every["claimed"]}


def test_what_is_released_for_later_makes_no_retry_wait(life: Life) -> None:
    life.accept(send_at=datetime.now(UTC) + timedelta(days=20))
    life.restored.hold(**HOLDER)
    life.restored.release(Filter(), everything=True, **HOLDER)
    [failed] = life.accept()
    with transaction(life.engine) as connection:
        set_columns(connection, [failed], status="failed", due_at=None)
    life.operations.retry(Selection(filter=Filter(status="failed")), rate_per_second=10, **HOLDER)
    assert life.sweep() == [failed]


def test_a_filter_releases_its_own(life: Life) -> None:
    life.accept(2, reference="order-1")
    life.accept(3, reference="order-2")
    life.restored.hold(**HOLDER)
    wanted = Filter(reference="order-1")
    assert life.restored.release(wanted, dry_run=True, **HOLDER).released == 2
    assert life.restored.release(wanted, **HOLDER).released == 2
    assert life.statuses() == {"retrying": 2, "unknown": 3}
    every: dict[str, Any] = {"ids": [new_id()], "everything": True}
    nothing: dict[str, Any] = {}
    for wrong in (nothing, every):
        with pytest.raises(WrongSelection):
            life.restored.release(Filter(), **wrong, **HOLDER)
    assert life.restored.release(Filter(), [new_id()], **HOLDER).skipped == 1


def test_a_job_of_the_backup_retries_nothing(life: Life) -> None:
    operator_actions = OperatorActions(life.engine)
    jobs = Jobs(JobRepository(life.engine, operator_actions), operator_actions)
    job = jobs.retry(Selection(filter=Filter(status=Status.FAILED)), operator="ann")
    life.restored.hold(**HOLDER)
    found = jobs.find(job.id)
    assert (found.state, found.failure, found.finished_at is None) == (
        JobState.STOPPED,
        "the database was restored from a backup",
        False,
    )
    assert jobs.dispatch(lambda _: None) == 0


def test_callbacks_are_parked_and_replayed(life: Life) -> None:
    ids = life.accept(3)
    with transaction(life.engine) as connection:
        connection.execute(text("UPDATE states SET callback_statuses = '{sent}'"))
    life.send(ids)
    book = CallbackRepository(life.engine)
    (given,) = book.give_out().values()
    assert book.claim(given[:1], lease_seconds=60)
    assert life.restored.hold(**HOLDER).callbacks == 3
    assert book.claim(given, lease_seconds=60) == []
    assert book.give_out() == {}


def test_new_callbacks_are_numbered_above_those_that_the_backup_has_not(life: Life) -> None:
    """A producer drops what has a lower number than it has seen of a notification."""
    ids = life.accept(2)
    with transaction(life.engine) as connection:
        connection.execute(text("UPDATE states SET callback_statuses = '{sent,unknown}'"))
    life.send(ids[:1])
    life.restored.hold(**HOLDER)
    with transaction(life.engine) as connection:
        before, after = connection.execute(text("SELECT sequence FROM callbacks ORDER BY sequence")).scalars()
    assert after > before + SKIPPED_NUMBERS


def change_identity(engine: Engine, column: str) -> None:
    with transaction(engine) as connection:
        connection.exec_driver_sql(f"UPDATE database_identity SET {column} = {column} + 1")


@pytest.mark.parametrize("column", ["system_identifier", "timeline", "database_oid", "table_oid"])
def test_each_part_of_the_identity_makes_another_database(
    life: Life, column: str, identified_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_identity(life.engine, column)
    guarded = make_engine(identified_url, guarded=True)
    with pytest.raises(DatabaseChanged):
        Ledger(guarded).claim([], lease_seconds=60)
    guarded.dispose()
    trusting = make_engine(identified_url, guarded=True, trusts_failover=True)
    if column == "timeline":
        Ledger(trusting).claim([], lease_seconds=60)
    else:
        with pytest.raises(DatabaseChanged):
            Ledger(trusting).claim([], lease_seconds=60)
    trusting.dispose()
    monkeypatch.setenv("NOTIFIER_DATABASE_URL", identified_url)
    services = Services(load_settings())
    with pytest.raises(DatabaseChanged):
        services.ledger.claim([], lease_seconds=60)
    operator = Life(identified_url, guarded=False)
    operator.accept()
    operator.restored.accept(reason="pg_upgrade", **HOLDER)
    assert operator.statuses() == {"queued": 1}
    services.ledger.claim([], lease_seconds=60)
    services.close()
    operator.engine.dispose()


def test_a_primary_from_before_a_failover_is_refused_by_who_has_seen_the_next(life: Life) -> None:
    """It stores nothing that would tell: its own timeline is the one that it has."""
    verdict = database_verdict(life.engine)
    assert verdict is not None
    assert verdict.current.timeline is not None
    with life.engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.autocommit = True
        (noted_at,) = raw.execute("SELECT noted_at FROM database_identity").fetchone()
        seen = SeenTimeline()
        for timeline in (verdict.current.timeline, verdict.current.timeline + 1):
            seen.note(noted_at, timeline)
        found = judge(raw, trusts_failover=True, seen=seen)
        assert found is not None
        assert "a primary from before a failover" in found.in_words
        # Unless an operator says that it is the one.
        life.restored.accept(reason="the failover was a mistake", **HOLDER)
        found = judge(raw, trusts_failover=True, seen=seen)
        assert found is not None
        assert not found.is_another


def test_a_user_who_may_not_ask_for_the_cluster_still_compares_oids(life: Life, identified_url: str) -> None:
    role = f"limited_{database_of(identified_url)}"
    with psycopg.connect(plain(identified_url), autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role}".encode())
        owner.execute(f"GRANT SELECT ON database_identity TO {role}".encode())
        owner.execute(b"REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    try:
        engine = make_engine(identified_url)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"SET ROLE {role}")
            connection.commit()
            raw: Any = connection.connection.driver_connection
            raw.autocommit = True
            verdict = judge(raw)
        assert verdict is not None
        assert verdict.current.system_identifier is None
        assert verdict.current.table_oid is not None
        assert not verdict.is_another
        engine.dispose()
    finally:
        with psycopg.connect(plain(identified_url), autocommit=True) as owner:
            owner.execute(f"DROP OWNED BY {role}".encode())
            owner.execute(f"DROP ROLE {role}".encode())


def test_an_upgrade_leaves_the_identity_that_a_backup_brought(life: Life, identified_url: str) -> None:
    change_identity(life.engine, "table_oid")
    upgrade(identified_url)
    verdict = database_verdict(life.engine)
    assert verdict is not None
    assert verdict.is_another


def test_the_api_answers_503_and_says_why_where_monitoring_looks(
    life: Life, identified_url: str, tmp_path: Path
) -> None:
    api = Api(identified_url, write_templates(tmp_path / "templates"))
    key = api.key(Scope.READ)
    change_identity(life.engine, "timeline")
    # Whatever connections there are: they are looked at again within a second.
    wait_until(lambda: api("GET", "/v1/notifications", key=key).status == 503, timeout=10)
    ready = api("GET", "/readyz")
    assert ready.status == 503
    assert "notifier db after-restore" in ready.json["database"]
    operator = held_of(life)
    operator.restored.hold(**HOLDER)
    wait_until(lambda: api("GET", "/v1/notifications", key=key).status == 200, timeout=10)
    operator.engine.dispose()
    api.close()


def test_the_doctor_tells_another_database_and_what_to_do(life: Life, identified_url: str) -> None:
    change_identity(life.engine, "system_identifier")
    services = Services(load_settings(database_url=identified_url), guarded=False)
    (check,) = check_identity(services)
    assert (check.ok, check.fix) == (False, "notifier db after-restore")
    operator = held_of(life)
    operator.restored.accept(reason="pg_upgrade", **HOLDER)
    (check,) = check_identity(services)
    assert (check.ok, check.fix) == (True, "")
    operator.engine.dispose()
    services.close()


def test_the_command_counts_holds_and_releases(life: Life, identified_url: str) -> None:
    life.accept(2, reference="order-1")
    life.accept(1, reference="order-2")
    change_identity(life.engine, "table_oid")
    notifier = CommandLine({"database_url": identified_url})
    counted = notifier("db", "after-restore", "--dry-run")
    assert counted.code == 0
    assert counted.out.startswith("another database: the oid of its table messages was ")
    assert counted.out.endswith("would be held: 3 notifications, 0 callbacks\n")
    too_soon = notifier("db", "after-restore", "--release", "--all")
    assert too_soon.code == 2
    assert "without --release first" in too_soon.err
    held = notifier("db", "after-restore", "--why", "the disk died")
    assert (held.code, held.out) == (
        0,
        "held: 3 notifications, 0 callbacks; programs go on within seconds\n",
    )
    assert len(notifier("search", "--reason", "restored", "--json").json) == 3
    assert "may have been sent since" in notifier("stuck").out
    released = notifier("db", "after-restore", "--release", "--reference", "order-1", "--json").json
    assert (released["released"], released["expired"], released["skipped"]) == (2, 0, 0)
    assert notifier("db", "after-restore", "--release", "--all").out == "1 released\n"
    assert notifier("db", "after-restore", "--release", str(new_id())).code == 1
    for wrong in (["--all"], ["--release", "--nothing-lost"], ["--nothing-lost"]):
        assert notifier("db", "after-restore", *wrong).code == 2
    assert notifier("db", "after-restore", "--release").code == 1


@pytest.mark.timeout(180)
def test_the_programs_send_nothing_again_and_go_on_when_an_operator_ran_it(
    second: Life, redis_broker_url: str, tmp_path: Path
) -> None:
    url = second.engine.url.render_as_string(hide_password=False)
    operator = held_of(second)
    with transaction(operator.engine) as connection:
        # As after hours.
        connection.execute(text("UPDATE states SET due_at = now()"))
        connection.execute(text("UPDATE messages SET context = :context"), {"context": CONTEXT})
    with running_service(url, redis_broker_url, tmp_path / "service") as service:
        logs = service.programs.logs
        waiting = ("intake", "worker-urgent", "worker-normal")
        wait_until(lambda: all("after-restore" in logs[name].read_text() for name in waiting), timeout=60)
        with Client(redis_broker_url, producer="shop", timeout_seconds=10) as client:
            client.send("receipt", "bob@example.com", context=json.loads(CONTEXT), reference="new")
        assert service.mail.messages == []
        assert operator.statuses() == {"queued": COUNT}
        assert operator.restored.hold(reason="the disk died", **HOLDER).held == COUNT
        wait_until(lambda: service.count("sent") == 1, timeout=60)
        ids = [row.id for row in operator.audit.search(Filter(status="unknown"), limit=200)]
        assert operator.restored.release(Filter(), ids[:3], **HOLDER).released == 3
        wait_until(lambda: service.count("sent") == 4, timeout=60)
        assert len(service.mail.messages) == 4
        assert operator.statuses() == {"sent": 4, "unknown": COUNT - 3}
    operator.engine.dispose()
