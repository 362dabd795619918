"""Months that are missing, and rows in their way, on a real Postgres."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text

from notifier.domain.errors import ServiceUnavailable
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane, OnUnknown, Outcome, Status
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.records import DeliveryResult, NewAttempt, NewNotification
from notifier.store.schema.partitions import (
    MONTHS_AHEAD,
    MONTHS_MENDED,
    PARTITIONED,
    Month,
    ensure_partitions,
    first_id,
    made_until,
    missing_months,
    missing_partitions,
    months,
    strays,
)
from tests.unit.cli.commandline import CommandLine

NOW = datetime.now(UTC)
LAST = UUID("ffffffff-ffff-7fff-bfff-ffffffffffff")
KEYS = {"messages": "id", "attempts": "notification_id", "events": "notification_id"}


class Record:
    """A record some of whose months were never made."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = make_engine(url, pool_size=8)
        self.ledger = Ledger(self.engine)
        self._count = 0

    def execute(self, statement: str, **values: Any) -> list[Any]:
        with transaction(self.engine) as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def forget(self, *ahead: int) -> list[Month]:
        """As if nobody had made these months: their partitions are gone."""
        found = [Month.of(NOW, count) for count in ahead]
        for month in found:
            for table in PARTITIONED:
                self.execute(f"DROP TABLE IF EXISTS {month.partition(table)}")
        return found

    def accept(self, moment: datetime) -> UUID:
        """A notification with an id of that moment, an attempt and a callback."""
        self._count += 1
        id_ = UUID(int=first_id(moment).int + (7 << 76) + (2 << 62) + self._count)
        message = Message(id=id_, producer="shop", to="ann@example.com", template="receipt")
        new = NewNotification(
            message,
            Channel.EMAIL,
            Lane.NORMAL,
            "v1",
            OnUnknown.RESEND,
            0,
            callback_statuses=(Status.QUEUED, Status.SENT),
        )
        assert self.ledger.accept([new])[0].fault is None
        self.execute("INSERT INTO attempts (notification_id, number, provider) VALUES (:id, 9, 'smtp')", id=id_)
        return id_

    def deliver(self, id_: UUID) -> bool:
        """Claim it, and write that it was sent. Returns whether it was ours."""
        claimed = self.ledger.claim([id_], lease_seconds=60)
        for one in claimed:
            assert self.ledger.start_attempts([NewAttempt(one, "smtp")], margin_seconds=0)
            result = DeliveryResult(
                one.id, one.claim, Status.SENT, number=1, outcome=Outcome.ACCEPTED, provider="smtp"
            )
            self.ledger.finish([result])
        return bool(claimed)

    def places(self, table: str) -> dict[UUID, str]:
        """In which partition the rows of each notification are."""
        key = KEYS[table]
        return {row[0]: row[1] for row in self.execute(f"SELECT {key}, tableoid::regclass::text FROM {table}")}

    def dump(self, *tables: str) -> list[str]:
        return [row for table in tables for (row,) in self.execute(f"SELECT t::text FROM {table} t ORDER BY 1")]


@pytest.fixture
def record(database_url: str) -> Iterator[Record]:
    made = Record(database_url)
    yield made
    made.engine.dispose()


def middle(month: Month) -> datetime:
    return datetime.strptime(month.name, "%Y-%m").replace(day=15, tzinfo=UTC)


@pytest.mark.parametrize("table", PARTITIONED)
def test_rows_of_one_table_in_the_way_are_moved(record: Record, table: str) -> None:
    coming, other = record.forget(2, 3)
    id_ = record.accept(middle(coming))
    for each in PARTITIONED:
        if each != table:
            record.execute(f"DELETE FROM {each} WHERE {KEYS[each]} = :id", id=id_)
    before = record.dump(table)
    assert [(month.month.name, month.rows) for month in missing_months(record.engine)] == [
        (coming.name, 1),
        (other.name, 0),
    ]
    made = ensure_partitions(record.engine)
    assert (made.moved, made.failed) == (1, {})
    assert made.names == [month.partition(each) for month in (coming, other) for each in PARTITIONED]
    assert record.places(table) == {id_: coming.partition(table)}
    assert record.dump(table) == before


def test_what_is_moved_stays_as_it_was_and_works_on(record: Record) -> None:
    (coming,) = record.forget(1)
    id_ = record.accept(middle(coming))
    (claimed,) = record.ledger.claim([id_], lease_seconds=60)
    everything = (*PARTITIONED, "callbacks", "idempotency_keys")
    before = record.dump(*everything)
    assert ensure_partitions(record.engine).moved > 2
    assert record.dump(*everything) == before
    # In hand while it was moved: its result finds it, its events go on counting, its callback is made.
    record.ledger.start_attempts([NewAttempt(claimed, "smtp")], margin_seconds=0)
    record.ledger.finish(
        [DeliveryResult(id_, claimed.claim, Status.SENT, number=1, outcome=Outcome.ACCEPTED, provider="smtp")]
    )
    assert record.execute("SELECT status FROM notifications") == [("sent",)]
    assert record.execute("SELECT status FROM callbacks ORDER BY sequence") == [("queued",), ("sent",)]
    ids = [id_ for (id_,) in record.execute("SELECT id FROM events ORDER BY recorded_at, id")]
    assert ids == sorted(set(ids))
    assert set(record.places("events").values()) == {coming.partition("events")}


_SHAPE = """
SELECT 'column ' || concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attstorage,
  pg_get_expr(adbin, adrelid)) FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attrelid = CAST(:name AS regclass) AND attnum > 0
UNION ALL SELECT 'constraint ' || pg_get_constraintdef(oid) || coninhcount FROM pg_constraint
WHERE conrelid = CAST(:name AS regclass)
UNION ALL SELECT 'index ' || replace(pg_get_indexdef(indexrelid), CAST(:name AS text), 'x') || relispartition::text
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = CAST(:name AS regclass)
UNION ALL SELECT 'trigger ' || tgname || (tgparentid <> 0)::text FROM pg_trigger
WHERE tgrelid = CAST(:name AS regclass)
ORDER BY 1
"""


@pytest.mark.parametrize("table", PARTITIONED)
def test_a_month_is_made_as_postgres_would_make_it(record: Record, table: str) -> None:
    made, by_postgres = record.forget(2, 3)
    record.accept(middle(made))
    name = by_postgres.partition(table)
    bounds = f"FROM ('{by_postgres.low}') TO ('{by_postgres.high}')"
    record.execute(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES {bounds}")
    ensure_partitions(record.engine)
    shape = record.execute(_SHAPE, name=made.partition(table))
    assert shape == record.execute(_SHAPE, name=name)
    assert len(shape) > 8


def test_ids_of_years_far_away_stay_and_are_in_nobodys_way(record: Record) -> None:
    (coming,) = record.forget(MONTHS_AHEAD)
    far, old = record.accept(datetime(2099, 5, 3, tzinfo=UTC)), record.accept(datetime(2001, 2, 3, tzinfo=UTC))
    # Of a year that no date of Python's has.
    record.execute(f"INSERT INTO events (notification_id, kind) VALUES ('{LAST}', 'operator')")
    assert len(ensure_partitions(record.engine).names) == len(PARTITIONED)
    assert ensure_partitions(record.engine).names == []
    assert made_until(record.engine) == coming.name
    assert record.places("messages") == dict.fromkeys((far, old), "messages_default")
    found = [one for one in strays(record.engine) if one.table == "messages"]
    assert [(one.is_ahead, one.rows, f"{one.first_at:%Y-%m}") for one in found] == [
        (False, 1, "2001-02"),
        (True, 1, "2099-05"),
    ]
    assert record.deliver(far)
    assert record.deliver(old)


def test_months_that_nobody_made_are_mended(record: Record) -> None:
    gone = record.forget(-4, -3, -2, -1, 0, 1, 2, 3)
    ids = {record.accept(NOW if month.name == f"{NOW:%Y-%m}" else middle(month)): month for month in gone[:5]}
    assert made_until(record.engine) is None
    assert len(missing_partitions(record.engine)) == 2 * len(PARTITIONED)
    assert ensure_partitions(record.engine).failed == {}
    for table in PARTITIONED:
        assert record.places(table) == {id_: month.partition(table) for id_, month in ids.items()}
    assert [month.name for month in months(record.engine)] == [month.name for month in gone]
    assert missing_partitions(record.engine) == []
    assert strays(record.engine) == []


def test_no_month_is_made_further_behind_than_two_years(record: Record) -> None:
    moment = NOW - timedelta(days=31 * (MONTHS_MENDED + 1))
    record.accept(moment)
    assert ensure_partitions(record.engine).names == []
    assert {one.is_ahead for one in strays(record.engine)} == {False}


def test_a_month_that_fails_keeps_no_other_from_being_made(record: Record) -> None:
    this, bad, coming = record.forget(0, 1, 2)
    record.accept(NOW)
    record.execute(f"CREATE TABLE {bad.partition('attempts')} (note text)")
    made = ensure_partitions(record.engine)
    assert made.names == [month.partition(table) for month in (this, coming) for table in PARTITIONED]
    assert list(made.failed) == [bad.name]
    with pytest.raises(ServiceUnavailable, match=rf"of {bad.name}: .*attempts_y.* already exists"):
        made.raise_failures()
    assert made_until(record.engine) == this.name
    # All of a month or nothing.
    assert missing_partitions(record.engine) == [bad.partition(table) for table in PARTITIONED]
    record.execute(f"DROP TABLE {bad.partition('attempts')}")
    assert ensure_partitions(record.engine).names == [bad.partition(table) for table in PARTITIONED]


def test_a_long_reader_is_not_waited_for_and_others_not_held_up(record: Record) -> None:
    record.forget(1, 2)
    with record.engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM events"))
        made = ensure_partitions(record.engine, tries=1)
        assert len(made.failed) == 2
        assert all("let it end (pg_stat_activity shows it)" in why for why in made.failed.values())
        assert record.accept(NOW)
    assert len(ensure_partitions(record.engine).names) == 2 * len(PARTITIONED)


def test_any_number_at_once_move_everything_once(record: Record) -> None:
    this, coming = record.forget(0, 1)
    ids = {record.accept(moment) for moment in (NOW, middle(coming)) for _ in range(5)}
    before = record.dump(*PARTITIONED)
    made: list[str] = []
    runs = [threading.Thread(target=lambda: made.extend(ensure_partitions(record.engine).names)) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(made) == sorted(month.partition(table) for month in (this, coming) for table in PARTITIONED)
    assert record.dump(*PARTITIONED) == before
    assert set(record.places("messages")) == ids


def test_inserts_claims_and_results_go_on_while_a_month_is_moved(record: Record) -> None:
    (this,) = record.forget(0)
    waiting = [record.accept(NOW) for _ in range(60)]
    taken: list[UUID] = []
    failures: list[BaseException] = []
    is_over = threading.Event()

    def work(own: list[UUID]) -> None:
        try:
            while own or not is_over.is_set():
                id_ = own.pop() if own else record.accept(datetime.now(UTC))
                assert record.deliver(id_)
                taken.append(id_)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(waiting[start::3],)) for start in range(3)]
    for worker in workers:
        worker.start()
    made = ensure_partitions(record.engine)
    is_over.set()
    for worker in workers:
        worker.join()
    assert (failures, made.failed) == ([], {})
    assert len(taken) == len(set(taken)) >= len(waiting)
    assert record.execute("SELECT status, count(*) FROM notifications GROUP BY 1") == [("sent", len(taken))]
    for table in PARTITIONED:
        assert record.places(table) == dict.fromkeys(taken, this.partition(table))


def test_the_command_shows_and_makes_what_is_missing(record: Record, database_url: str) -> None:
    notifier = CommandLine({"database_url": database_url})
    assert notifier("db", "partitions").code == 2
    this, coming = record.forget(0, 1)
    record.accept(NOW)
    record.accept(datetime(2099, 5, 3, tzinfo=UTC))
    shown = notifier("db", "partitions", "--dry-run")
    assert shown.code == 0
    assert f"{this.name}\t{', '.join(this.partition(table) for table in PARTITIONED)}\t3" in shown.out
    assert "this month has no partitions" in shown.out
    assert "1 rows of messages stay in the default partition" in shown.err
    record.execute(f"CREATE TABLE {coming.partition('events')} (note text)")
    failed = notifier("db", "partitions", "--now")
    assert failed.code == 1
    assert f"{coming.name} could not be created: " in failed.err
    assert "3 rows moved" in failed.out
    assert f"until the end of {this.name}" in failed.out
    record.execute(f"DROP TABLE {coming.partition('events')}")
    made = notifier("db", "partitions", "--now", "--json").json
    assert made["made"]["names"] == [coming.partition(table) for table in PARTITIONED]
    assert made["until"] == Month.of(NOW, MONTHS_AHEAD).name
    assert notifier("db", "partitions", "--dry-run").out.startswith("no month is missing")


def test_a_program_that_owns_nothing_needs_no_right_while_nothing_is_missing(record: Record) -> None:
    record.accept(datetime(2099, 5, 3, tzinfo=UTC))
    role = f"app_{os.getpid()}"
    record.execute(f"CREATE ROLE {role}")
    try:
        with record.engine.connect() as connection:
            connection.execute(text(f"GRANT SELECT, INSERT, UPDATE ON {', '.join(PARTITIONED)} TO {role}"))
            connection.commit()
        event.listen(
            record.engine, "begin", lambda connection: connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
        )
        made = ensure_partitions(record.engine)
        assert (made.names, made.failed) == ([], {})
        assert len(strays(record.engine)) == len(PARTITIONED)
    finally:
        record.engine.dispose()
        admin = make_engine(record.url)
        with transaction(admin) as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
        admin.dispose()
