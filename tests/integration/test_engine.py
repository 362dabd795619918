"""Connections to Postgres: tried when they rested, and what commits when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from notifier.errors import ServiceUnavailable
from notifier.store import engine as engine_module
from notifier.store.engine import make_engine, transaction

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
    monkeypatch.setattr(engine_module, "TRIED_AFTER_SECONDS", 0.0)
    assert backend(engine) > 0


def test_one_that_was_just_in_use_is_not_tried(
    engine: Engine, other: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "TRIED_AFTER_SECONDS", 60.0)
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
