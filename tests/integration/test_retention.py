"""Retention on a real Postgres: redacted, deleted or dropped when it is old, and nothing that has not ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from notifier.cli.actions import operator
from notifier.config.limits import Retention
from notifier.config.settings import Settings
from notifier.config.structure import Structure
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane, OnUnknown, Outcome, Status
from notifier.operations.retention import RetentionJob, RetentionRun
from notifier.security.encryption import Sealer
from notifier.security.recipient_hash import HashKey
from notifier.store import retention
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.operator_actions import ActionCounts, Move, OperatorActions
from notifier.store.operator_log import OperatorLog, RecordFilter
from notifier.store.personal_data import PersonalData
from notifier.store.records import DeliveryResult, NewAttempt, NewNotification, NewRejection
from notifier.store.retention import RetentionRepository
from notifier.store.schema.partitions import PARTITIONED, Month, drop_month, first_id, month_after
from notifier.store.search import Audit, Filter
from notifier.store.selection import Selection
from notifier.worker.app import make_app
from notifier.worker.names import RETENTION
from tests.unit.cli.commandline import CommandLine
from tests.waiting import wait_until

VAULT = PersonalData(HashKey(), Sealer({"one": bytes(32)}))
TO = {Channel.EMAIL: "ann@example.com", Channel.SMS: "+15550100123"}
NOW = datetime.now(UTC)


class Past:
    """Notifications that were accepted long ago."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self.audit, self.ledger = Audit(self.engine, VAULT), Ledger(self.engine, VAULT)
        self._count = 0

    def accept(
        self,
        days: int,
        channel: Channel = Channel.EMAIL,
        status: str = "sent",
        is_test: bool = False,
        **more: Any,
    ) -> UUID:
        """One with an id of so many days ago, with an attempt, an event and a callback."""
        self._count += 1
        id_ = UUID(int=first_id(NOW - timedelta(days=days)).int + (7 << 76) + (2 << 62) + self._count)
        fields = {"context": {"code": "042137"}, "metadata": {"cart": "c-1"}, "reference": "A-1001"} | more
        message = Message(
            id=id_, producer="shop", idempotency_key=f"k{self._count}", to=TO[channel], template="code", **fields
        )
        new = NewNotification(
            message, channel, Lane.NORMAL, "v1", OnUnknown.HOLD, 0, secret_names=("code",), is_test=is_test
        )
        assert self.ledger.accept([new])[0].fault is None
        for statement in (
            "UPDATE states SET status = :status, due_at = NULL, updated_at = now() - interval '2 days'"
            " WHERE id = :id",
            "INSERT INTO attempts (notification_id, number, provider) SELECT :id, 1, :status",
            "INSERT INTO callbacks (notification_id, id, producer, endpoint, status)"
            " VALUES (:id, gen_random_uuid(), 'shop', 'shop', :status)",
        ):
            self.execute(statement, id=id_, status=status)
        return id_

    def reject(self, days: int, channel: Channel = Channel.EMAIL) -> None:
        self.ledger.accept([], [NewRejection(f"notify.{channel}.normal", b"{", ())])
        self.execute(
            "UPDATE rejected_messages SET received_at = now() - make_interval(days => :days)"
            " WHERE received_at > now() - interval '1 hour'",
            days=days,
        )

    def make_months(self, *ago: int) -> list[str]:
        """Partitions of the months so long ago."""
        names = []
        for months in ago:
            start = month_after(NOW, -months)
            low, high = first_id(start), first_id(month_after(start, 1))
            for table in PARTITIONED:
                name = f"{table}_y{start:%Y}m{start:%m}"
                self.execute(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{low}') TO ('{high}')")
            names.append(f"{start:%Y-%m}")
        return names

    def execute(self, statement: str, **values: Any) -> None:
        with transaction(self.engine) as connection:
            connection.execute(text(statement), values)

    def know_messages(self, *ids: UUID) -> None:
        """Each has a message at a provider that gives ids."""
        for id_ in ids:
            self.execute(
                "INSERT INTO provider_messages VALUES ('twilio', :sid, :id, 1, 'answer')", sid=str(id_), id=id_
            )

    def count(self, table: str, id_: UUID | None = None) -> int:
        where = "" if id_ is None else " WHERE notification_id = :id"
        with transaction(self.engine) as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}{where}"), {"id": id_}).scalar_one())

    def dump(self) -> str:
        """Every row of every table that holds what producers send, as text."""
        tables = (*PARTITIONED, "states", "idempotency_keys", "rejected_messages", "callbacks", "retention_marks")
        with transaction(self.engine) as connection:
            return "".join(
                row
                for name in tables
                for row in connection.execute(text(f"SELECT t::text FROM {name} t")).scalars()
            )

    def age_of(self, ago: int) -> int:
        """How many days ago the month so long ago had begun two days before."""
        return (NOW - month_after(NOW, -ago)).days - 2

    def retry(self, id_: UUID) -> ActionCounts:
        """What an operator who retries a failed one is told."""
        operator_actions = OperatorActions(self.engine)
        record = operator_actions.begin("ann", "retry", {}, None)
        move = Move(Status.RETRYING, (Status.FAILED,), "retried", record.at)
        return operator_actions.move_page(
            record.id, Selection((id_,)), move, after=None, tally=ActionCounts()
        ).tally

    def waiting(self) -> int:
        """Statements that wait for a lock."""
        query = "pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return self.count(query)

    def ids(self) -> set[UUID]:
        return {view.id for view in self.audit.search(Filter())}

    def keeper(self, **tables: tuple[int | None, int | None]) -> RetentionJob:
        made = {
            Channel(name): Retention(redact_after_days=redact, drop_after_days=drop)
            for name, (redact, drop) in tables.items()
        }
        return RetentionJob(RetentionRepository(self.engine), made)


@pytest.fixture
def past(database_url: str) -> Iterator[Past]:
    made = Past(database_url)
    yield made
    made.engine.dispose()


def test_without_a_table_everything_stays(past: Past) -> None:
    id_ = past.accept(4000)
    assert past.keeper().preview().is_empty
    assert past.keeper().run().is_empty
    assert past.ids() == {id_}


def test_what_has_an_id_of_a_time_to_come_goes_by_when_it_was_accepted(past: Past) -> None:
    past.make_months(-4)
    ids = [
        past.accept(days, channel, status)
        for days, channel, status in (
            (-130, Channel.EMAIL, "sent"),
            (-9000, Channel.EMAIL, "sent"),
            (-20, Channel.SMS, "sent"),
            (-130, Channel.EMAIL, "unknown"),
        )
    ]
    keeper = past.keeper(email=(30, 90), sms=(None, 90))
    assert keeper.preview().is_empty
    assert keeper.run().is_empty
    past.execute("UPDATE messages SET accepted_at = now() - interval '40 days'")
    assert keeper.preview().redacted == keeper.run().redacted == {"email": 2}
    past.execute("UPDATE messages SET accepted_at = now() - interval '100 days'")
    assert keeper.preview().deleted == keeper.run().deleted == {"email": 2, "sms": 1}
    assert past.ids() == {ids[3]}
    assert past.count("attempts") == past.count("idempotency_keys") == 1
    assert keeper.run().is_empty


def test_redaction_leaves_the_record_and_no_recipient(past: Past) -> None:
    old, young = past.accept(31), past.accept(29)
    text_message = past.accept(31, Channel.SMS)
    live = past.accept(31, status="unknown")
    keeper = past.keeper(email=(30, None))
    assert keeper.preview().redacted == {"email": 1}
    assert keeper.run().redacted == {"email": 1}
    view = past.audit.story(old).notification
    assert (view.recipient, view.metadata, view.status, view.reference) == (None, {}, "sent", "A-1001")
    with transaction(past.engine) as connection:
        row = connection.execute(text("SELECT * FROM notifications WHERE id = :id"), {"id": old}).one()
    assert (row.sealed, row.secrets, row.context, row.secret_names) == (None, None, None, [])
    assert {one.id for one in past.audit.search(Filter(recipient="ann@example.com"))} == {old, young, live}
    for kept, to in ((young, "ann@example.com"), (live, "ann@example.com"), (text_message, "+15550100123")):
        assert past.audit.story(kept).notification.recipient == to
    # What has ended by the next night is found behind the mark of this one.
    past.execute("UPDATE states SET status = 'failed' WHERE id = :id", id=live)
    assert past.keeper(email=(30, None)).run().redacted == {"email": 1}
    assert past.keeper(email=(30, None)).preview().redacted == {"email": 0}


def test_what_has_just_ended_can_be_retried_however_old_it_is(past: Past) -> None:
    """A reminder for months later is as old as its id when it is sent at last."""
    just, earlier = past.accept(40, status="failed"), past.accept(40, status="failed")
    past.execute("UPDATE states SET updated_at = now() WHERE id = :id", id=just)
    keeper = past.keeper(email=(30, 35), sms=(30, 100))
    assert keeper.preview().redacted["email"] == 1
    keeper.run()
    assert past.ids() == {just}
    assert past.retry(just).changed == 1
    assert earlier not in past.ids()


def test_no_personal_value_is_in_a_dump_after_redaction_even_without_keys(past: Past) -> None:
    past.ledger = Ledger(past.engine)
    for channel in Channel:
        past.accept(40, channel, metadata={"name": "Ann"}, callback_url="https://shop.example.com/ann")
        past.reject(40, channel)
    words = ("ann", "example.com", "15550100123", "042137")

    def found() -> set[str]:
        return {word for word in words if word in past.dump().lower()}

    assert found() == set(words)
    past.keeper(email=(30, None), sms=(30, None)).run()
    assert found() == set()


def test_a_month_is_dropped_when_it_is_old_for_both_channels(past: Past) -> None:
    gone, stays = past.make_months(5, 3)
    age = (NOW - month_after(NOW, -5)).days - 2
    old, text_message = past.accept(age), past.accept(age, Channel.SMS)
    later = past.accept((NOW - month_after(NOW, -3)).days - 2)
    keys = past.count("idempotency_keys")
    past.know_messages(old, text_message, later)
    keeper = past.keeper(email=(None, 100), sms=(None, 60))
    seen = keeper.preview()
    assert seen.dropped == [gone]
    assert keeper.run().dropped == [gone]
    assert past.ids() == {later}
    assert past.count("idempotency_keys") == keys - 2
    for table in ("attempts", "events", "callbacks", "provider_messages"):
        assert past.count(table, old) == past.count(table, text_message) == 0
        assert past.count(table, later) > 0
    assert stays not in keeper.run().dropped


def test_a_month_with_something_that_has_not_ended_is_held(past: Past) -> None:
    [month] = past.make_months(5)
    age = (NOW - month_after(NOW, -5)).days - 2
    id_ = past.accept(age, status="unknown")
    kept = past.keeper(email=(None, 90), sms=(None, 90)).run()
    assert (kept.held, kept.dropped) == ([month], [])
    assert past.keeper(email=(None, 90), sms=(None, 90)).preview().held == [month]
    assert past.ids() == {id_}


def test_a_test_that_is_held_for_ever_goes_with_its_month(past: Past) -> None:
    """Nobody is asked to decide about it, so it must not keep the month of all others."""
    [month] = past.make_months(5)
    age = past.age_of(5)
    past.accept(age, status="unknown", is_test=True)
    past.accept(age)
    redacted = past.accept(40, status="unknown", is_test=True)
    keeper = past.keeper(email=(30, 90), sms=(30, 90))
    assert (keeper.preview().dropped, keeper.preview().redacted["email"]) == ([month], 3)
    kept = keeper.run()
    assert (kept.held, kept.dropped, past.ids()) == ([], [month], {redacted})
    assert past.audit.story(redacted).notification.recipient is None
    assert past.count("states") == 1


def test_a_month_that_is_in_use_is_left_for_the_next_night(past: Past) -> None:
    [month] = past.make_months(5)
    keeper = past.keeper(email=(None, 90), sms=(None, 90))
    with transaction(past.engine) as connection:
        connection.execute(text("SELECT count(*) FROM notifications"))
        kept = keeper.run()
        assert (kept.in_use, kept.dropped) == ([month], [])
    assert keeper.run().dropped == [month]


def test_what_comes_alive_while_its_month_is_dropped_keeps_it(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.store.retention.PAGE", 1)
    [month] = past.make_months(5)
    first, second, third = sorted(past.accept(past.age_of(5), status="failed") for _ in range(3))
    # Without secrets, which would be wiped first.
    past.execute("UPDATE states SET attempt_count = 1, has_secrets = false")
    keeper = past.keeper(email=(None, 90), sms=(None, 90))
    told: list[ActionCounts] = []
    results: list[DeliveryResult] = []

    def after_the_first_page(_: RetentionRun) -> None:
        if told:
            return
        told.extend(map(past.retry, (first, second, third)))
        past.ledger.take_due(limit=10, unknown_after_seconds=60)
        [claim] = past.ledger.claim([third], lease_seconds=60)
        begun = past.ledger.start_attempts([NewAttempt(claim, "smtp")], margin_seconds=5)
        results.append(
            DeliveryResult(
                third,
                claim.claim,
                Status.SENT,
                number=begun[third].number,
                outcome=Outcome.ACCEPTED,
                provider="smtp",
            )
        )

    kept = keeper.run(progress=after_the_first_page)
    assert [(one.changed, one.skipped) for one in told] == [(0, 1), (1, 0), (1, 0)]
    assert (kept.held, kept.in_use, kept.dropped) == ([month], [], [])
    past.ledger.finish(results)
    story = past.audit.story(third)
    assert (story.notification.status, story.attempts[-1].outcome) == ("sent", "accepted")
    assert past.ids() == {second, third}
    past.execute("UPDATE states SET status = 'sent', due_at = NULL")
    assert keeper.run().in_use == [month], "what ended just now may have another attempt under way"
    past.execute("UPDATE states SET updated_at = now() - interval '2 days'")
    assert keeper.run().dropped == [month]


def test_a_month_stays_while_an_operator_moves_one_of_its_notifications(past: Past) -> None:
    [month] = past.make_months(5)
    id_ = past.accept(past.age_of(5), status="failed")
    keeper = past.keeper(email=(None, 90), sms=(None, 90))
    with transaction(past.engine) as connection:
        retried = text("UPDATE states SET status = 'retrying', due_at = now() WHERE id = :id")
        connection.execute(retried, {"id": id_})
        assert keeper.run().in_use == [month]
    assert keeper.run().held == [month]
    assert past.ids() == {id_}


def test_a_message_that_is_accepted_into_a_month_while_it_is_dropped_is_found(past: Past) -> None:
    [month] = past.make_months(5)
    past.accept(past.age_of(5))
    keeper = past.keeper(email=(None, 90), sms=(None, 90))
    accepted: list[UUID] = []

    def after_the_last_page(_: RetentionRun) -> None:
        if not accepted and not past.count("states"):
            accepted.append(past.accept(past.age_of(5), status="queued"))
            past.execute("UPDATE states SET due_at = now()")

    assert keeper.run(progress=after_the_last_page).held == [month]
    assert [due.id for due in past.ledger.take_due(limit=10, unknown_after_seconds=60)] == accepted
    past.execute("UPDATE states SET status = 'sent', due_at = NULL, updated_at = now() - interval '2 days'")
    assert keeper.run().dropped == [month]
    late = past.accept(past.age_of(5))
    assert past.ids() == {late}
    assert past.count("messages_default") == past.count("events_default") == 1


def test_a_drop_waits_for_a_message_that_is_being_accepted_and_leaves_it(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.store.schema.partitions.LOCK_SECONDS", 60)
    past.make_months(5)
    accepted: list[UUID] = []
    dropped: list[bool] = []
    accepting = threading.Thread(target=lambda: accepted.append(past.accept(past.age_of(5), status="unknown")))
    month = Month.of(month_after(NOW, -5))
    dropping = threading.Thread(target=lambda: dropped.append(drop_month(past.engine, month)))
    with past.engine.connect() as rival:
        # Somebody else's message with its key: the acceptance waits in the middle until this ends.
        key = "INSERT INTO idempotency_keys (producer, key, body_hash, notification_id)"
        rival.execute(text(f"{key} VALUES ('shop', 'k1', '', gen_random_uuid())"))
        accepting.start()
        wait_until(lambda: past.waiting() == 1)
        dropping.start()
        wait_until(lambda: past.waiting() == 2)
        rival.rollback()
    accepting.join()
    dropping.join()
    assert dropped == [False]
    assert past.ids() == set(accepted)


def test_the_channel_with_the_shorter_time_is_deleted_row_by_row(past: Past) -> None:
    old_text, young_text = past.accept(40, Channel.SMS), past.accept(20, Channel.SMS)
    mail = past.accept(40)
    keeper = past.keeper(sms=(None, 30), email=(None, 365))
    assert keeper.preview().deleted == {"sms": 1}
    assert keeper.run().deleted.get("sms") == 1
    assert past.ids() == {young_text, mail}
    for table in ("attempts", "events", "idempotency_keys", "callbacks"):
        assert past.count(table, old_text) == 0
        assert past.count(table, mail) > 0


def test_keys_of_tests_go_with_their_notifications(past: Past) -> None:
    past.make_months(5)
    by_row = past.accept(40, Channel.SMS, is_test=True), past.accept(40, Channel.SMS)
    by_month = past.accept(past.age_of(5), is_test=True), past.accept(past.age_of(5))
    young = past.accept(20, Channel.SMS, is_test=True)
    past.keeper(sms=(None, 30), email=(None, 100)).run()
    assert past.ids() == {young}
    assert [past.count("idempotency_keys", id_) for id_ in (*by_row, *by_month, young)] == [0, 0, 0, 0, 1]


def test_keys_of_tests_that_an_earlier_version_left_behind_go(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAGE", 2)
    ids = [past.accept(1, is_test=True) for _ in range(5)]
    live = past.accept(1)
    for id_ in (*ids[1:4], live):
        past.execute("DELETE FROM messages WHERE id = :id", id=id_)
    past.keeper().run()
    # What its owner deleted of the live ones by hand is their business.
    assert [past.count("idempotency_keys", id_) for id_ in (*ids, live)] == [1, 0, 0, 0, 1, 1]


def test_rejected_messages_go_when_the_first_of_the_two_is_over(past: Past) -> None:
    for days, channel in ((40, Channel.EMAIL), (20, Channel.EMAIL), (40, Channel.SMS)):
        past.reject(days, channel)
    keeper = past.keeper(email=(30, 90))
    assert keeper.preview().rejected == {"email": 1}
    assert keeper.run().rejected == {"email": 1}
    assert past.count("rejected_messages") == 2


def test_secrets_that_nobody_sent_again_for_a_day_are_wiped(past: Past) -> None:
    failed, fresh, waits = (past.accept(2, status=status) for status in ("failed", "suppressed", "retrying"))
    past.execute("UPDATE states SET updated_at = now() WHERE id = :id", id=fresh)
    assert past.keeper().run().wiped == 1
    with transaction(past.engine) as connection:
        query = text("SELECT id FROM notifications WHERE secrets IS NOT NULL")
        assert set(connection.execute(query).scalars()) == {fresh, waits}
    assert failed not in {fresh, waits}


def test_two_at_once_and_one_that_stops_in_the_middle_do_no_harm(past: Past) -> None:
    for _ in range(30):
        past.accept(40)
    assert not past.keeper(email=(30, None)).run(seconds=0).is_complete
    done: list[int] = []
    threads = [
        threading.Thread(target=lambda: done.append(past.keeper(email=(30, None)).run().redacted.get("email", 0)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    past.keeper(email=(30, None)).run()
    assert past.keeper(email=(30, None)).preview().redacted == {"email": 0}
    assert len(done) == 3


def test_the_command_line_counts_and_does_it(past: Past, database_url: str, tmp_path: Path) -> None:
    past.accept(40)
    config = tmp_path / "notifier.toml"
    config.write_text("[retention.email]\nredact_after_days = 30\n")
    notifier = CommandLine({"database_url": database_url, "config": config})
    assert notifier("db", "retention").code == 2
    assert notifier("db", "retention", "--dry-run", "--json").json["result"]["redacted"] == {"email": 1}
    assert "would be redacted" in notifier("db", "retention", "--dry-run").out
    assert notifier("db", "retention", "--now", "--json").json["result"]["redacted"] == {"email": 1}
    [record] = OperatorLog(past.engine).page(RecordFilter(action="retention"), limit=2)
    assert record.selection == {"tables": {"email": {"redact_after_days": 30, "drop_after_days": None}}}
    assert (record.operator, record.result["changed"], record.result["dropped"]) == (operator(), 1, [])
    assert record.finished_at is not None
    assert "(redacted)" in notifier("search", "--channel", "email").out
    without = CommandLine({"database_url": database_url})
    assert "kept for ever" in without("db", "retention", "--now").err


def test_beat_has_it_done_every_night(past: Past, database_url: str) -> None:
    past.accept(40)
    structure = Structure(retention={Channel.EMAIL: Retention(redact_after_days=30)})
    settings = Settings(database_url=database_url, broker_url="amqp://127.0.0.1:1/").model_copy(
        update={"structure": structure}
    )
    app = make_app(settings)
    assert app.conf.beat_schedule["retention"]["task"] == RETENTION
    assert app.tasks[RETENTION]()["retention"]["redacted"] == {"email": 1}
