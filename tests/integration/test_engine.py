"""Connections to Postgres: tried when they rested, and what commits when."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from notifier.domain.errors import ConfigurationError, ServiceUnavailable, StatementCancelled
from notifier.domain.statuses import SuppressionReason
from notifier.store import binds, connection_pool
from notifier.store.connection_limits import ConnectionLimits, connection_limits
from notifier.store.database_errors import sqlstate_of
from notifier.store.engine import execute_directly, make_engine, transaction
from notifier.store.server_state import server_state
from notifier.store.session_encryption import SessionEncryption, session_encryption
from tests.support.tcp_proxy import TcpProxy, tcp_proxy
from tests.support.tls import certificate, postgres_behind_tls
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
    monkeypatch.setattr(connection_pool, "TRIED_AFTER_SECONDS", 0.0)
    assert backend(engine) > 0


def test_one_that_was_just_in_use_is_not_tried(
    engine: Engine, other: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_pool, "TRIED_AFTER_SECONDS", 60.0)
    end_backend_of(engine, other)
    with pytest.raises(ServiceUnavailable):
        backend(engine)
    # Nothing has to be done about it.
    assert backend(engine) > 0


def test_programs_do_not_stay_with_a_server_that_takes_no_writes(
    database_url: str, other: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover, where a name still leads to the standby: reading from it would go well for ever."""
    name = make_url(database_url).database
    program = make_engine(database_url, pool_size=1, guarded=True)
    with transaction(other) as connection:
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with pytest.raises(ServiceUnavailable, match="takes no writes"):
        backend(program)
    reader = make_engine(database_url)
    assert not server_state(reader).takes_writes
    reader.dispose()
    with transaction(other) as connection:
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    assert server_state(program).takes_writes
    program.dispose()


@pytest.mark.parametrize("is_direct", [True, False], ids=["direct", "by SQLAlchemy"])
def test_a_connection_that_became_read_only_is_left_by_all(database_url: str, is_direct: bool) -> None:
    engine = make_engine(database_url, pool_size=2)
    with transaction(engine) as first, transaction(engine) as second:
        for connection in (first, second):
            connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    insert = execute_directly if is_direct else Connection.execute
    with pytest.raises(ServiceUnavailable, match="read-only"), transaction(engine) as connection:
        insert(connection, INSERT, {"task": "refused"})
    with transaction(engine) as first, transaction(engine) as second:
        first.execute(INSERT, {"task": "first"})
        second.execute(INSERT, {"task": "second"})
    with transaction(engine) as connection:
        assert connection.execute(TASKS).scalars().all() == ["first", "second"]
    engine.dispose()


def test_times_are_read_whatever_the_database_writes_them_like(database_url: str, other: Engine) -> None:
    name = make_url(database_url).database
    with transaction(other) as connection:
        connection.exec_driver_sql(f"ALTER DATABASE \"{name}\" SET datestyle = 'SQL, DMY'")
    program = make_engine(database_url, pool_size=1)
    with transaction(program) as connection:
        found = connection.exec_driver_sql("SELECT timestamptz '2026-11-30 14:37:05+00'").scalar_one()
    assert found == datetime(2026, 11, 30, 14, 37, 5, tzinfo=UTC)
    program.dispose()


def test_a_database_of_another_encoding_than_utf8_is_refused(database_url: str, other: Engine) -> None:
    name = f"{make_url(database_url).database}_ascii"
    with other.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(
            # The built-in locale of PostgreSQL 17 and newer is of UTF-8 alone.
            f"CREATE DATABASE \"{name}\" TEMPLATE template0 LOCALE_PROVIDER libc ENCODING 'SQL_ASCII' "
            "LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        odd = make_engine(make_url(database_url).set(database=name).render_as_string(hide_password=False))
        try:
            with pytest.raises(ConfigurationError, match="SQL_ASCII, which cannot hold every text"):
                backend(odd)
        finally:
            connection.exec_driver_sql(f'DROP DATABASE "{name}"')


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


def test_a_direct_statement_finds_what_any_other_finds(engine: Engine) -> None:
    """Values are given as they are, with the casts of their types; rows have names."""
    query = text("""
        SELECT CAST(:ids AS text) AS ids, id, reason, CAST('{"a": 0.1}' AS json) AS found,
            CAST(NULL AS int) AS none, CAST('100%' AS bytea) AS bytes, now() AS at, :token IS NULL AS has_none
        FROM unnest(:ids) AS i(id), unnest(:reasons) AS r(reason) ORDER BY id, reason
    """).bindparams(binds.IDS, binds.texts("reasons"), binds.uuid("token"))
    values = {"ids": [UUID(int=1), UUID(int=2)], "reasons": list(SuppressionReason), "token": None}
    with transaction(engine) as connection:
        usual = connection.execute(query, values).all()
        direct = execute_directly(connection, query, values)
        assert [row._asdict() for row in direct] == [row._asdict() for row in usual]
        assert execute_directly(connection, INSERT, {"task": "kept"}) == []
    with transaction(engine) as connection:
        assert connection.execute(TASKS).scalars().all() == ["kept"]


#: Of the server, of the driver, and of neither.
FAILING: list[Any] = [
    (text(f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{state}'; END $$"), {})
    for state in (
        "22012",
        "23505",
        "26000",
        "40001",
        "40P01",
        "42501",
        "42P01",
        "53100",
        "55P03",
        "57014",
        "57P01",
    )
] + [(INSERT, {"task": task}) for task in (object(), "\x00", "\ud800")]


def failure(engine: Engine, execute: Callable[..., Any], *statement: object, is_one_statement: bool) -> object:
    with (
        pytest.raises((ServiceUnavailable, SQLAlchemyError, UnicodeError)) as found,
        transaction(engine, is_one_statement=is_one_statement) as connection,
    ):
        execute(connection, *statement)
    error = found.value
    return type(error), error.args, isinstance(error, ServiceUnavailable) and sqlstate_of(error)


@pytest.mark.parametrize("is_one_statement", [True, False])
def test_a_direct_statement_fails_as_any_other_does(engine: Engine, is_one_statement: bool) -> None:
    for statement, values in FAILING:
        usual, direct = (
            failure(engine, way, statement, values, is_one_statement=is_one_statement)
            for way in (Connection.execute, execute_directly)
        )
        assert direct == usual
    assert backend(engine) > 0


def test_when_one_breaks_under_a_direct_statement_all_are_replaced(
    database_url: str, other: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_pool, "TRIED_AFTER_SECONDS", 60.0)
    engine = make_engine(database_url, pool_size=2)
    with transaction(engine), transaction(engine):
        pass
    end = text("""
        SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """)
    with transaction(other) as connection:
        assert connection.execute(end).scalars().all() == [True, True]
    with pytest.raises(ServiceUnavailable), transaction(engine, is_one_statement=True) as connection:
        execute_directly(connection, TASKS, {})
    for _ in range(2):
        assert backend(engine) > 0
    engine.dispose()


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


def test_the_limit_that_leaves_the_fewest_connections_is_named(engine: Engine) -> None:
    # Each database of the tests is its own, the server's connections are everyone's.
    whole = connection_limits(engine)
    assert whole.name == "max_connections"
    assert 1 <= whole.used <= whole.allowed
    with engine.begin() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f'ALTER DATABASE "{name}" CONNECTION LIMIT 3'))
    assert connection_limits(engine) == ConnectionLimits("the database's limit", 3, 1)


def frozen_within(engine: Engine, proxy: TcpProxy) -> None:
    with transaction(engine) as connection:
        proxy.freeze()
        connection.execute(text("SELECT 1"))


def test_a_server_that_stands_still_is_given_up_and_only_one_waits_for_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = make_url(database_url)
    host = str(at.host or at.query["host"])
    for module in ("connection_pool", "engine", "connection"):
        monkeypatch.setattr(f"notifier.store.{module}.CONTACT_SECONDS", 2)
    with tcp_proxy(host, at.port or 5432) as proxy:
        url = at.set(host="127.0.0.1", port=proxy.port, query={}).render_as_string(hide_password=False)
        engine = make_engine(url, pool_size=4)

        def ask(_: int = 0) -> str:
            try:
                return str(backend(engine))
            except ServiceUnavailable as error:
                return str(error)

        with ThreadPoolExecutor(4) as pool:
            assert all(one.isdigit() for one in pool.map(ask, range(4)))
            # One that takes long is waited for …
            with transaction(engine) as connection:
                connection.execute(text("SELECT pg_sleep(3)"))
            # … as long as its server is there.
            with pytest.raises(ServiceUnavailable, match=r"did not answer within \d s"):
                frozen_within(engine, proxy)
            monkeypatch.setattr(connection_pool, "TRIED_AFTER_SECONDS", 0.0)
            ask()
            told = list(pool.map(ask, range(4)))
            assert all("cannot be used now" in one for one in told)
            assert sum("the server does not answer" in one for one in told) == 3, "they do not wait with the first"
            proxy.thaw()
            wait_until(lambda: ask().isdigit())
        engine.dispose()


def test_whether_a_session_is_encrypted_and_the_server_verified_is_known(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def session(host: str, port: int, **query: str) -> SessionEncryption:
        url = make_url(database_url).set(host=host, port=port, query=query)
        engine = make_engine(url.render_as_string(hide_password=False), pool_size=1)
        try:
            return session_encryption(engine)
        finally:
            engine.dispose()

    both = certificate(tmp_path, "DNS:localhost")
    with postgres_behind_tls(make_url(database_url), both) as port:
        assert session("localhost", port) == SessionEncryption("localhost", "127.0.0.1", True, "prefer")
        known = {"sslmode": "verify-full", "sslrootcert": str(both)}
        assert session("localhost", port, **known).is_verified
        with pytest.raises(ServiceUnavailable, match=r'"localhost" .*does not match host name "127'):
            session("127.0.0.1", port, **known)
    monkeypatch.setenv("PGSSLMODE", "allow")
    plain = make_engine(database_url, pool_size=1)
    found = session_encryption(plain)
    plain.dispose()
    assert (found.is_encrypted, found.sslmode) == (False, "allow")
