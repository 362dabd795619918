"""The outbox on real databases and brokers: with the producer's transaction or not at all, and then for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, create_engine, func, select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.schema import CreateTable

from notifier.broker.publisher import Wire
from notifier.client.client import Client
from notifier.client.outbox import SqlOutbox, create_table, make_engine, make_table, metadata, table
from notifier.client.relay import Passed, Relay
from notifier.domain.errors import (
    ConfigurationError,
    InvalidMessage,
    MissingPackage,
    PublishFailed,
    ServiceUnavailable,
)
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import parse_body
from tests.support import forking
from tests.support.queues import bodies
from tests.support.tcp_proxy import through_proxy
from tests.waiting import patient, wait_until

AWAY = "amqp://guest:guest@127.0.0.1:1//"


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a producer's own database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shop.db'}"
    url: str = request.getfixturevalue("empty_database_url")
    return url


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database)
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def postgres(empty_database_url: str) -> Iterator[Engine]:
    engine = make_engine(empty_database_url)
    create_table(engine)
    yield engine
    engine.dispose()


#: It has no broker at all: the outbox needs none.
client = Client(producer="shop")


def send(transaction: Any, **fields: Any) -> Any:
    return client.send("hello", "ann@example.com", outbox=transaction, **fields)


def fill(engine: Engine, count: int, *, lane: str = "normal") -> list[str]:
    with engine.begin() as connection:
        entries = [{"to": "ann@example.com"}] * count
        handles = client.send_many(entries, channel="email", lane=lane, template="hello", outbox=connection)
    return [str(handle.id) for handle in handles]


def waiting(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def messages(broker_url: str, queue: str = "notify.email.normal") -> list[Message]:
    """What reached the queue, as the intake reads it."""
    lane = Lane(queue.rpartition(".")[2])
    entries = [entry for body in bodies(broker_url, queue) for entry in parse_body(body, Channel.EMAIL, lane)]
    assert not [entry.faults for entry in entries if entry.faults]
    return [entry.message for entry in entries if entry.message]


def ids(broker_url: str) -> list[str]:
    return [str(message.id) for message in messages(broker_url)]


def test_a_message_is_committed_with_the_session_or_not_at_all(engine: Engine) -> None:
    with Session(engine) as session:
        send(session)
        session.rollback()
        assert waiting(engine) == 0
        handle = send(session, lane="urgent")
        session.commit()
    with engine.connect() as connection:
        row = connection.execute(select(table)).one()
    assert (row.id, row.channel, row.lane, row.attempts, row.last_error) == (handle.id, "email", "urgent", 0, "")
    (entry,) = parse_body(row.body.encode(), Channel.EMAIL, Lane.URGENT)
    assert entry.message
    assert (entry.message.id, entry.message.producer) == (handle.id, "shop")


def test_a_connection_and_a_scoped_session_are_transactions_too(engine: Engine) -> None:
    with engine.begin() as connection:
        send(connection)
    session = scoped_session(sessionmaker(engine))
    send(session)
    session.commit()
    session.remove()
    assert waiting(engine) == 2


def test_a_savepoint_that_is_rolled_back_takes_its_messages_along(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        send(session)
        with session.begin_nested() as savepoint:
            send(session)
            savepoint.rollback()
    assert waiting(engine) == 1


def test_an_engine_is_refused(engine: Engine) -> None:
    with pytest.raises(TypeError, match="Session or a Connection, not Engine"):
        send(engine)


def test_a_message_that_is_not_valid_never_reaches_the_outbox(engine: Engine) -> None:
    with Session(engine) as session:
        with pytest.raises(InvalidMessage):
            client.send_many([{"to": "nobody"}], channel="email", template="hello", outbox=session)
        session.commit()
    assert waiting(engine) == 0


def test_one_id_is_in_the_outbox_once(engine: Engine) -> None:
    known = new_id()
    with engine.begin() as connection:
        send(connection, id=known)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        send(connection, id=known)


def test_a_relay_publishes_what_was_committed_and_forgets_it(engine: Engine, broker_url: str) -> None:
    sent = fill(engine, 1200)
    with engine.begin() as connection:
        alone = send(connection, lane="bulk", context={"name": "Zoë ☃"})
    with Wire(broker_url) as wire:
        assert Relay(SqlOutbox(engine), wire).drain() == 1201
    assert sorted(ids(broker_url)) == sorted(sent)
    (message,) = messages(broker_url, "notify.email.bulk")
    assert (message.id, message.context) == (alone.id, {"name": "Zoë ☃"})
    assert waiting(engine) == 0


def test_a_running_relay_takes_what_comes_and_ends_when_told(engine: Engine, amqp_url: str) -> None:
    stop = threading.Event()
    with Wire(amqp_url) as wire:
        relay = Relay(SqlOutbox(engine), wire, idle_seconds=0.05)
        thread = threading.Thread(target=relay.run, args=(stop,))
        thread.start()
        for _ in range(3):
            fill(engine, 1)
            wait_until(lambda: waiting(engine) == 0)
        stop.set()
        thread.join(timeout=patient(10))
    assert not thread.is_alive()
    assert len(ids(amqp_url)) == 3


def test_rows_stay_while_the_broker_is_away_and_say_why(engine: Engine) -> None:
    fill(engine, 3)
    relay = Relay(SqlOutbox(engine), Wire(AWAY))
    relay.step()
    with pytest.raises(PublishFailed, match="no broker answers"):
        relay.drain()
    with engine.connect() as connection:
        rows = connection.execute(select(table.c.attempts, table.c.last_error)).all()
    assert [row.attempts for row in rows] == [2, 2, 2]
    assert all("no broker answers at 127.0.0.1:1" in row.last_error for row in rows)


def test_a_broker_that_comes_back_gets_everything(engine: Engine, amqp_url: str) -> None:
    with Wire(amqp_url) as wire:
        wire.publish(Channel.EMAIL, Lane.BULK, b"{}")  # declares the queues
    with through_proxy(amqp_url) as (proxy, url), Wire(url, timeout_seconds=0.5) as wire:
        relay = Relay(SqlOutbox(engine), wire, idle_seconds=0.05)
        stop = threading.Event()
        thread = threading.Thread(target=relay.run, args=(stop,))
        proxy.freeze()
        sent = fill(engine, 10)
        thread.start()
        wait_until(lambda: [attempt for attempt in attempts(engine) if attempt])
        assert waiting(engine) == 10
        proxy.thaw()
        wait_until(lambda: waiting(engine) == 0, timeout=20)
        stop.set()
        thread.join(timeout=patient(10))
    assert sorted(ids(amqp_url)) == sorted(sent)


def attempts(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(select(table.c.attempts)))


def test_a_row_whose_json_is_broken_does_not_keep_the_others(engine: Engine, amqp_url: str) -> None:
    sent = fill(engine, 3)
    with engine.begin() as connection:
        broken = {"id": new_id(), "channel": "email", "lane": "normal", "body": "{oops"}
        connection.execute(table.insert(), broken | {"created_at": datetime.now(UTC)})
    with Wire(amqp_url) as wire:
        Relay(SqlOutbox(engine), wire).drain()
    entries = [parse_body(body, Channel.EMAIL, Lane.NORMAL) for body in bodies(amqp_url, "notify.email.normal")]
    assert sorted(str(entry.message.id) for entry in entries[0] if entry.message) == sorted(sent)
    assert [fault.code for fault in entries[1][0].faults] == ["not_json"]


def test_a_row_for_no_queue_stays_and_does_not_keep_the_others(engine: Engine, amqp_url: str) -> None:
    with engine.begin() as connection:
        odd = {"id": new_id(), "channel": "fax", "lane": "normal", "body": "{}"}
        connection.execute(table.insert(), odd | {"created_at": datetime.now(UTC)})
    fill(engine, 2)
    with Wire(amqp_url) as wire:
        assert Relay(SqlOutbox(engine), wire).drain() == 2
    assert waiting(engine) == 1


def test_a_relay_that_dies_before_its_commit_publishes_the_same_ids_again(engine: Engine, amqp_url: str) -> None:
    sent = fill(engine, 5)
    with Wire(amqp_url) as wire:
        relay = Relay(SqlOutbox(engine), wire)

        def publish_and_die(rows: Any) -> Passed:
            relay._publish(rows)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            SqlOutbox(engine).pass_on(10, [(Channel.EMAIL, Lane.NORMAL)], publish_and_die)
        assert waiting(engine) == 5
        relay.drain()
    assert sorted(ids(amqp_url)) == sorted(sent * 2)


def test_relays_share_the_work_without_doing_any_of_it_twice(postgres: Engine, amqp_url: str) -> None:
    sent = fill(postgres, 3000)
    with Wire(amqp_url, timeout_seconds=30) as first, Wire(amqp_url, timeout_seconds=30) as second:
        relays = [Relay(SqlOutbox(postgres), wire, batch_rows=50) for wire in (first, second)]
        stop = threading.Event()
        threads = [threading.Thread(target=relay.run, args=(stop,)) for relay in relays]
        for thread in threads:
            thread.start()
        wait_until(lambda: waiting(postgres) == 0, timeout=60)
        stop.set()
        for thread in threads:
            thread.join(timeout=patient(10))
    assert sorted(ids(amqp_url)) == sorted(sent)


def test_a_relay_passes_over_what_another_one_holds(postgres: Engine) -> None:
    held, free = fill(postgres, 1), fill(postgres, 1)
    seen: list[str] = []

    def look(rows: Any) -> Passed:
        seen.extend(str(row.id) for row in rows)
        return Passed()

    with postgres.connect() as other:
        other.execute(select(table.c.id).where(table.c.id == held[0]).with_for_update())
        SqlOutbox(postgres).pass_on(10, [(Channel.EMAIL, Lane.NORMAL)], look)
    assert seen == free


def test_producers_write_while_a_relay_waits_for_the_broker(engine: Engine, amqp_url: str) -> None:
    fill(engine, 1)

    def write_meanwhile(_rows: Any) -> Passed:
        fill(engine, 1)
        return Passed()

    started_at = time.monotonic()
    SqlOutbox(engine).pass_on(10, [(Channel.EMAIL, Lane.NORMAL)], write_meanwhile)
    assert time.monotonic() - started_at < patient(2)
    assert waiting(engine) == 2


def test_an_outbox_may_have_another_name(database: str, amqp_url: str) -> None:
    engine = make_engine(database)
    make_table(own := MetaData(), "shop_messages")
    own.create_all(engine)
    named = Client(producer="shop", outbox_table="shop_messages")
    with engine.begin() as connection:
        named.send("hello", "ann@example.com", outbox=connection)
    with Wire(amqp_url) as wire:
        assert Relay(SqlOutbox(engine, "shop_messages"), wire).drain() == 1
    engine.dispose()


def test_a_missing_table_is_said_as_what_it_is(database: str) -> None:
    engine = make_engine(database)
    outbox = SqlOutbox(engine)
    for call in (outbox.check, Relay(outbox, Wire(AWAY)).step):
        with pytest.raises(ConfigurationError, match="has no table notifier_outbox"):
            call()
    engine.dispose()


def test_a_database_that_is_away_is_waited_for() -> None:
    engine = make_engine("postgresql://shop:secret@127.0.0.1:1/shop")
    relay = Relay(SqlOutbox(engine), Wire(AWAY))
    assert 0 < relay.step() <= 0.5
    with pytest.raises(ServiceUnavailable) as away:
        relay.drain()
    assert "secret" not in str(away.value)


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("nonsense", ConfigurationError, "not an SQLAlchemy URL"),
        ("frogs://x/y", ConfigurationError, "not an SQLAlchemy URL"),
        ("mysql+pymysql://u:secret@h/d", MissingPackage, "install the package of the module pymysql"),
    ],
)
def test_a_wrong_url_or_a_missing_driver_is_said(url: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as refused:
        make_engine(url)
    assert "secret" not in str(refused.value)


def test_the_table_holds_a_whole_message_on_mysql() -> None:
    assert "body MEDIUMTEXT NOT NULL" in str(CreateTable(table).compile(dialect=mysql.dialect()))
    assert "body TEXT NOT NULL" in str(CreateTable(table).compile(dialect=sqlite.dialect()))


# The program.


def program(database: str, broker_url: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "notifier", "relay", *arguments]
    return command, {**os.environ, "NOTIFIER_OUTBOX_URL": database, "NOTIFIER_BROKER_URL": broker_url}


def test_the_command_publishes_what_is_there_once(engine: Engine, database: str, amqp_url: str) -> None:
    fill(engine, 4)
    command, environment = program(database, amqp_url, "--once", "--json")
    done = forking.run(command, env=environment, capture_output=True, text=True, check=True)
    assert '"published": 4' in done.stdout
    assert len(ids(amqp_url)) == 4


def test_the_command_fails_clearly_without_a_table(database: str) -> None:
    create_engine(database.replace("postgresql:", "postgresql+psycopg:")).dispose()
    command, environment = program(database, AWAY)
    done = forking.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has no table notifier_outbox" in done.stderr


def test_the_command_ends_on_sigterm_with_nothing_half_done(engine: Engine, database: str, amqp_url: str) -> None:
    sent = fill(engine, 5_000)
    command, environment = program(database, amqp_url, "--batch", "50")
    process = forking.launch(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: waiting(engine) < 5_000, timeout=30)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=patient(30))
    assert process.returncode == 0, errors
    left = waiting(engine)
    assert 0 < left < 5_000
    published = ids(amqp_url)
    assert len(published) == len(set(published)) == 5_000 - left
    assert set(published) <= set(sent)


def test_killed_relays_lose_nothing_and_repeat_at_most_the_batch_in_hand(postgres: Engine, amqp_url: str) -> None:
    sent = fill(postgres, 5_000)
    command, environment = program(postgres.url.render_as_string(hide_password=False), amqp_url, "--batch", "100")
    for left in (4_500, 3_000, 1_500):
        process = forking.launch(command, env=environment, stderr=subprocess.DEVNULL)
        wait_until(lambda: waiting(postgres) < left, timeout=30, every=0.001)  # noqa: B023 - called at once
        process.kill()
        process.wait()
    forking.run([*command, "--once"], env=environment, check=True, capture_output=True)
    published = ids(amqp_url)
    assert set(published) == set(sent)
    assert len(published) - len(sent) <= 3 * 100


def test_the_command_waits_for_a_broker_that_is_away(engine: Engine, database: str) -> None:
    fill(engine, 1)
    command, environment = program(database, AWAY)
    process = forking.launch(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: attempts(engine)[0] >= 2, timeout=30)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=patient(30))
    assert process.returncode == 0
    assert "no broker answers" in errors
