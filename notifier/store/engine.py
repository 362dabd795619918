"""The database engine of a process, and its transactions: all code that runs SQL starts here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
from psycopg import Error as PsycopgError
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, Engine, TextClause, create_engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import SQLAlchemyError

from notifier.domain.errors import ConfigurationError, DatabaseChanged, ServiceUnavailable
from notifier.store import connection_pool
from notifier.store.clock import DatabaseClock, clock_of, set_clock
from notifier.store.connection import ANSWER_SECONDS, CONTACT_SECONDS
from notifier.store.connection_pool import DatabaseSession, Sessions
from notifier.store.database_errors import meaning_of
from notifier.store.database_url import database_url
from notifier.store.identity import IdentityCheck
from notifier.store.session_options import SET_OPTIONS, START_OPTIONS, STATEMENT_SECONDS


def _from_json(data: bytes) -> Any:
    """Like `json.loads`, but much faster: there is a context in every row that is sent."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        # For example a number that is out of msgspec's range; PostgreSQL has no bounds for numbers.
        return json.loads(data)


def make_engine(
    url: str,
    *,
    pool_size: int = 5,
    application: str = "notifier",
    guarded: bool = False,
    trusts_failover: bool = False,
) -> Engine:
    """An engine on which every wait has an end: 5 s to connect, 30 s for a statement; keepalives detect dead
    peers. A server that stands still is given up after 5 s, or 10 s in the middle of a statement: see
    `store.connection`.

    A pooled connection that rested is tried before use, so no statement fails once the database is back.
    `guarded`: refuse to work on a database that was replaced by another one (see `store.identity`).
    """
    engine = create_engine(
        database_url(url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=30,
        pool_recycle=1800,
        connect_args={
            "connect_timeout": CONTACT_SECONDS,
            "application_name": application,
            "options": START_OPTIONS,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30000,
        },
        json_deserializer=_from_json,
        # Otherwise an error would hold the values of its statement: people's data, one-time codes.
        hide_parameters=True,
    )
    clock = DatabaseClock()
    set_clock(engine, clock)
    connection_pool.watch(engine, Sessions(guarded=guarded, trusts_failover=trusts_failover), clock)
    return engine


def database_now(engine: Engine) -> datetime:
    """The present time by the database's clock, which is asked every few seconds.

    Raises:
        ServiceUnavailable: the clock cannot be asked now.
    """
    clock = clock_of(engine)
    if clock.is_due:
        with transaction(engine):
            pass  # taking a connection out of the pool measures it
    return clock.now()


#: Milliseconds. Statements usually hold a row lock for only one or two.
_IMPATIENT = "SET LOCAL lock_timeout = 500"
_BY_VALUES = (
    "SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_hashjoin', 'on', true), "
    "set_config('enable_mergejoin', 'on', true)"
)
_UNPREPARED: ContextVar[bool] = ContextVar("unprepared", default=False)


@contextmanager
def unprepared() -> Iterator[None]:
    """Within this, transactions of this thread use connections that prepare nothing, new ones if need be. So a
    statement that failed because of its session does not fail for that again. Nor does it wait long for a row
    lock."""
    token = _UNPREPARED.set(True)
    try:
        yield
    finally:
        _UNPREPARED.reset(token)


def _connect(engine: Engine) -> Connection:
    connection = engine.connect()
    if not _UNPREPARED.get():
        return connection
    while connection_pool.is_used(connection) and connection_pool.prepares(connection):
        connection.invalidate()
        connection.close()
        connection = engine.connect()
    connection_pool.prepare_nothing(connection)
    return connection


@contextmanager
def transaction(
    engine: Engine, *, is_one_statement: bool = False, plans_by_values: bool = False
) -> Iterator[Connection]:
    """One transaction, committed at the end.

    `is_one_statement`: each statement commits by itself, which saves the round trips of BEGIN and COMMIT.
    `plans_by_values`: each statement is planned for its values, with every kind of join. The best index of a
    selection depends on what a person filters by, and on how much that finds.

    Raises:
        ServiceUnavailable: the database cannot be used now. If the connection broke during the commit, the work
            may or may not be in. Callers cope: claims and results are conditional, inserts idempotent.
        StatementCancelled: a statement was cancelled, usually after its 30 s. Nothing was done.
        RowsHeld: another session holds rows for longer than this may wait. Nothing was done.
        DatabaseChanged: the engine is guarded, and its database was replaced by another one. Nothing was done.
    """
    session: DatabaseSession | None = None
    try:
        with _connect(engine) as connection:
            session = connection_pool.session_of(connection)
            if session is not None and session.refusal is not None:
                raise DatabaseChanged(session.refusal)
            has_to_set = session is not None and bool(session.wrong)
            is_impatient = _UNPREPARED.get()
            if is_one_statement and not has_to_set and not is_impatient:
                yield connection.execution_options(isolation_level="AUTOCOMMIT")
                return
            with connection.begin():
                if has_to_set:
                    connection.exec_driver_sql(SET_OPTIONS)
                if is_impatient:
                    connection.exec_driver_sql(_IMPATIENT)
                if plans_by_values:
                    connection.exec_driver_sql(_BY_VALUES)
                yield connection
    except SQLAlchemyError as error:
        lost = connection_pool.note_failure(session, getattr(error, "orig", None))
        meant = ServiceUnavailable(f"the database cannot be used now: {lost}") if lost else meaning_of(error)
        if meant is None:
            raise
        raise meant from error


def allow_seconds(connection: Connection, seconds: float | None) -> None:
    """Replace the 30 s that statements of this transaction may take, on the server and here. None: no limit."""
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round((seconds or 0) * 1000)}")
    spare = ANSWER_SECONDS - STATEMENT_SECONDS
    connection_pool.driver_of(connection).answer_seconds = None if seconds is None else seconds + spare


def execute_directly(connection: Connection, statement: TextClause, values: Mapping[str, Any]) -> list[Any]:
    """Execute `statement` straight on the driver. Returns its rows as named tuples, or none if it has none.

    For the few statements that run for every message: around each, SQLAlchemy takes as long as the driver itself.
    It raises what `connection.execute` raises, and a broken connection is given up in the same way.
    """
    driver, cursor = connection_pool.driver_of(connection), None
    try:
        cursor = driver.cursor(row_factory=namedtuple_row)
        cursor.execute(for_driver(statement), values)
        return cursor.fetchall() if cursor.pgresult.nfields else []
    except BaseException as error:
        # SQLAlchemy's own errors and pool bookkeeping, because a copy of them would diverge some day.
        query = statement.text if isinstance(error, PsycopgError) else None
        connection._handle_dbapi_exception(error, query, None, cursor, None)


# The cache stays small: the statements of `execute_directly` are constants.
@cache
def for_driver(statement: TextClause) -> str:
    """The text of the statement in psycopg's form."""
    return str(statement.compile(dialect=PGDialect_psycopg()))  # type: ignore[no-untyped-call]


def check_sessions(engine: Engine) -> DatabaseSession | None:
    """The kind of sessions that the engine gets, after a test of what a pooler may do. None: not an engine of
    `make_engine`.

    Raises:
        ConfigurationError: work is not possible through this pooler.
        ServiceUnavailable: the database cannot be used now.
    """
    found: DatabaseSession | None = None
    for _ in range(2):
        try:
            with transaction(engine) as connection:
                found = connection_pool.session_of(connection)
                connection_pool.prepare_twice(connection)
        except ServiceUnavailable as error:
            if connection_pool.STATEMENT_MODE_FIX in str(error):
                raise ConfigurationError(
                    connection_pool.STATEMENT_MODE_FIX, setting="NOTIFIER_DATABASE_URL"
                ) from error
            raise
        except PsycopgError as error:
            # Straight on the driver, because SQLAlchemy would have prepared it only much later.
            if connection_pool.note_failure(found, error) is None:
                raise ServiceUnavailable(f"the database cannot be used now: {type(error).__name__}") from error
    return found


def who_and_where(engine: Engine) -> tuple[str, str]:
    """Our role and our database."""
    with transaction(engine) as connection:
        row = connection.exec_driver_sql("SELECT current_user, current_database()").one()
    return row[0], row[1]


def database_verdict(engine: Engine, *, trusts_failover: bool = False) -> IdentityCheck | None:
    """Whether this is still the same database. None: it has no table that says so.

    Raises:
        ServiceUnavailable: the database cannot be used now.
    """
    try:
        with engine.connect() as connection:
            return connection_pool.verdict_of(connection, trusts_failover=trusts_failover)
    except (SQLAlchemyError, PsycopgError) as error:
        raise ServiceUnavailable(f"the database cannot be used now: {type(error).__name__}") from error
