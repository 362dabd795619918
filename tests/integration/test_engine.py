"""Connections to Postgres: tried when they rested, and what commits when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from notifier.domain.errors import ServiceUnavailable, StatementCancelled
from notifier.store import sessions
from notifier.store.engine import make_engine, transaction
from tests.waiting import patient, wait_until

INSERT = text("INSERT INTO retention_marks (task, reached) VALUES (:task, gen_random_uuid())")
TASKS = text("SELECT task FROM retention_marks ORDER BY task")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=1)
    yield engine
    engine.dispose()


@pytest.fixture
def other(database_url: str) -> Iterator[Engine]:
    other = make_engine(database_url, pool_size=1)
    yield other
    other.dispose()


def backend(engine: Engine) -> int:
    with transaction(engine) as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def end_backend_of(engine: Engine, other: Engine) -> None:
    """As a restart of the server would: the pool still has the connection."""
    pid = backend(engine)
    with transaction(other) as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def test_a_connection_that_rested_is_tried_and_replaced(
    engine: Engine, other: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_backend_of(engine, other)
    monkeypatch.setattr(sessions, "TRIED_AFTER_SECONDS", 0.0)
    assert backend(engine) > 0


def test_one_that_was_just_in_use_is_not_tried(
    engine: Engine, other: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "TRIED_AFTER_SECONDS", 60.0)
    end_backend_of(engine, other)
    with pytest.raises(ServiceUnavailable):
        backend(engine)
    # Nothing has to be done about it.
    assert backend(engine) > 0


def insert_and_fail(engine: Engine, task: str, *, is_one_statement: bool) -> None:
    with transaction(engine, is_one_statement=is_one_statement) as connection:
        connection.execute(INSERT, {"task": task})
        raise ZeroDivisionError


def test_what_is_one_statement_commits_itself_and_the_next_transaction_is_whole_again(engine: Engine) -> None:
    for task, is_one in (("kept", True), ("rolled back", False)):
        with pytest.raises(ZeroDivisionError):
            insert_and_fail(engine, task, is_one_statement=is_one)
    with transaction(engine) as connection:
        assert connection.execute(TASKS).scalars().all() == ["kept"]


def test_a_statement_that_fails_leaves_nothing(engine: Engine) -> None:
    with pytest.raises(ServiceUnavailable), transaction(engine, is_one_statement=True) as connection:
        connection.execute(text("WITH i AS (INSERT INTO no_such_table VALUES (1)) SELECT 1"))
    with transaction(engine) as connection:
        assert connection.execute(TASKS).scalars().all() == []


def end_statement(other: Engine, how: str, pid: int) -> bool:
    """Once it sleeps."""
    query = f"SELECT {how}(pid) FROM pg_stat_activity WHERE pid = :pid AND query LIKE '%pg_sleep%'"
    with transaction(other) as connection:
        return bool(connection.execute(text(query), {"pid": pid}).scalar())


@pytest.mark.parametrize(("how", "is_away"), [("pg_cancel_backend", False), ("pg_terminate_backend", True)])
def test_a_statement_that_is_cancelled_is_not_a_database_that_is_away(
    engine: Engine, other: Engine, how: str, is_away: bool
) -> None:
    pid = backend(engine)

    def sleep() -> None:
        with transaction(engine) as connection:
            connection.execute(text("SELECT pg_sleep(20)"))

    with ThreadPoolExecutor(1) as pool:
        slept = pool.submit(sleep)
        wait_until(lambda: end_statement(other, how, pid), timeout=15)
        with pytest.raises(ServiceUnavailable) as found:
            slept.result(timeout=patient(15))
    assert isinstance(found.value, StatementCancelled) is not is_away


def test_json_is_read_as_python_reads_it(engine: Engine) -> None:
    """Numbers of PostgreSQL have no bounds; a document of any depth and script comes back as it went in."""
    deep = "[" * 300 + "]" * 300
    documents = ['{"a": [1, -2.5, true, null, "Zo\\u00eb\\n"]}', "1e400", "0.1", "12345678901234567890123", deep]
    with transaction(engine) as connection:
        for document in documents:
            read, written = connection.execute(
                text("SELECT CAST(:d AS jsonb), CAST(CAST(:d AS jsonb) AS text)"), {"d": document}
            ).one()
            assert read == json.loads(written)
            assert connection.execute(text("SELECT CAST(:d AS json)"), {"d": document}).scalar() == json.loads(
                document
            )
