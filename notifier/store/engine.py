"""Connections to Postgres: their deadlines, their transactions, and what their errors mean."""

from __future__ import annotations

import json
import re
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
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from notifier.domain.errors import (
    ConfigurationError,
    DatabaseChanged,
    RowsHeld,
    ServiceUnavailable,
    StatementCancelled,
)
from notifier.store import sessions
from notifier.store.clock import DatabaseClock, clock_of, set_clock
from notifier.store.connection import ANSWER_SECONDS, CONTACT_SECONDS
from notifier.store.identity import IdentityCheck

#: SQLSTATE classes (and single states) that say nothing about our statement: it may well work later.
#: 08 connection, 25006 read-only, 40 rollback (deadlock), 53 resources (disk, memory, connections),
#: 55 object in use, 57 operator (shutdown, crash), 58 system. https://www.postgresql.org/docs/current/errcodes-appendix.html
_TEMPORARY = ("08", "25006", "40", "53", "55", "57", "58")
#: "Undefined table" and "undefined column": the database is not at this version's revision, or not yet.
_NOT_MIGRATED = ("42P01", "42703")
#: It took longer than `statement_timeout`, or `pg_cancel_backend` ended it: the database is there.
_CANCELLED = "57014"
#: A lock that did not come in time, and a deadlock.
_HELD = ("55P03", "40P01")
#: Everything else about our statements, such as a right that our user lacks: never a message's fault.
_OURS = "42"
#: SQLSTATE: the role may not do this.
NO_RIGHT = "42501"


def _from_json(data: bytes) -> Any:
    """As `json.loads` reads it, in a fraction of the time: there is a context in every row that is sent."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        # A number that is out of range to it; PostgreSQL has no bounds for them.
        return json.loads(data)


#: postgresql://user:password@a:5432,b:5433/name?…, and the folder of a socket as %2Frun%2Fpostgresql: as libpq has
#: them.
_SEVERAL_SERVERS = re.compile(
    r"(?P<start>\w+://(?:[^/?]*@)?)(?P<servers>[^/?@]*(?:,|%2[Ff])[^/?@]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?"
)
_SERVER = re.compile(r"\[(?P<v6>[^]]*)\](?::(?P<v6_port>\d+))?|(?P<host>[^:]*)(?::(?P<port>\d+))?")


def _with_servers_in_query(url: str) -> str:
    """SQLAlchemy wants them so: postgresql://user:password@/name?host=a,b&port=5432,5433&…

    Raises ValueError: one of them is none.
    """
    several = _SEVERAL_SERVERS.fullmatch(url)
    if several is None:
        return url
    servers = [_SERVER.fullmatch(server) for server in several["servers"].split(",")]
    if not all(servers):
        raise ValueError("not host:port")
    hosts = ",".join(one["host"] or one["v6"] or "" for one in servers if one)
    ports = ",".join(one["port"] or one["v6_port"] or "5432" for one in servers if one)
    others = f"&{several['query']}" if several["query"] else ""
    return f"{several['start']}{several['path'] or '/'}?host={hosts}&port={ports}{others}"


def database_url(url: str) -> URL:
    """The URL with our driver in it. It may name several servers.

    Raises:
        ConfigurationError: if it is no PostgreSQL URL. The text holds no part of the URL.
    """
    try:
        parsed = make_url(_with_servers_in_query(url))
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigurationError(
            "the database URL is not one of PostgreSQL: write postgresql://user:password@host:5432/name",
            setting="NOTIFIER_DATABASE_URL",
        )
    return parsed.set(drivername="postgresql+psycopg")


def make_engine(
    url: str,
    *,
    pool_size: int = 5,
    application: str = "notifier",
    guarded: bool = False,
    trusts_failover: bool = False,
) -> Engine:
    """An engine whose every wait has an end: 5 s to connect, 30 s a statement, dead peers found by keepalives. A
    server that stands still is given up after 5 s, or 10 s in the middle of a statement: see `store.connection`.

    A pooled connection that rested is tried before use, so no statement fails once the database is back.
    `guarded`: refuse to work on a database that is not the one it was (see `store.identity`).
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
            "options": sessions.START_OPTIONS,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30000,
        },
        json_deserializer=_from_json,
        # An error would hold the values of its statement: people's data, one-time codes.
        hide_parameters=True,
    )
    clock = DatabaseClock()
    set_clock(engine, clock)
    sessions.watch(engine, sessions.Sessions(guarded=guarded, trusts_failover=trusts_failover), clock)
    return engine


def database_now(engine: Engine) -> datetime:
    """By the database's clock, which is asked every few seconds.

    Raises:
        ServiceUnavailable: it cannot be asked now.
    """
    clock = clock_of(engine)
    if clock.is_due:
        with transaction(engine):
            pass  # taking a connection out of the pool measures it
    return clock.now()


def is_temporary(error: SQLAlchemyError) -> bool:
    """Whether the database could not be used at all, as opposed to refusing this statement."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    # No SQLSTATE: the connection was never made, or broke under the statement.
    return error.connection_invalidated or state is None or state.startswith(_TEMPORARY)


def is_about_statement(error: ServiceUnavailable) -> bool:
    """Whether the database is there but ended this statement: it took too long, or its rows are locked."""
    return isinstance(error, StatementCancelled) or sqlstate_of(error) == "55P03"


def sqlstate_of(error: ServiceUnavailable) -> str | None:
    """Of the database's error that `transaction` raised this for; None: there was none."""
    return getattr(getattr(error.__cause__, "orig", None), "sqlstate", None)


#: As `sessions.OPTIONS` has it.
STATEMENT_SECONDS = 30.0
#: Milliseconds. Statements lock rows for one or two.
_IMPATIENT = "SET LOCAL lock_timeout = 500"
_BY_VALUES = (
    "SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_hashjoin', 'on', true), "
    "set_config('enable_mergejoin', 'on', true)"
)
_UNPREPARED: ContextVar[bool] = ContextVar("unprepared", default=False)


@contextmanager
def unprepared() -> Iterator[None]:
    """Within this, transactions of this thread use connections that prepare nothing, new ones if need be: what
    failed because of its session does not fail so again. Nor do they wait long for a locked row."""
    token = _UNPREPARED.set(True)
    try:
        yield
    finally:
        _UNPREPARED.reset(token)


def _connect(engine: Engine) -> Connection:
    connection = engine.connect()
    if not _UNPREPARED.get():
        return connection
    while sessions.is_used(connection) and sessions.prepares(connection):
        connection.invalidate()
        connection.close()
        connection = engine.connect()
    sessions.prepare_nothing(connection)
    return connection


@contextmanager
def transaction(
    engine: Engine, *, is_one_statement: bool = False, plans_by_values: bool = False
) -> Iterator[Connection]:
    """One transaction, committed at the end. With `is_one_statement` each statement commits itself, which saves
    the round trips of BEGIN and COMMIT. With `plans_by_values` each is planned for its values, with every way
    to join: the best index of a selection depends on what a person filters by, and how much that finds.

    Raises:
        ServiceUnavailable: if the database cannot be used now. If the connection broke during the commit the
            work may or may not be in; callers look (claims and results are conditional, inserts idempotent).
        StatementCancelled: if a statement was cancelled, as a rule after its 30 s. Nothing was done.
        RowsHeld: if it may not wait longer for rows that another session holds. Nothing was done.
        DatabaseChanged: if the engine is guarded, and its database is not the one it was. Nothing was done.
    """
    session: sessions.DatabaseSession | None = None
    try:
        with _connect(engine) as connection:
            session = sessions.session_of(connection)
            if session is not None and session.refusal is not None:
                raise DatabaseChanged(session.refusal)
            has_to_set = session is not None and bool(session.wrong)
            is_impatient = _UNPREPARED.get()
            if is_one_statement and not has_to_set and not is_impatient:
                yield connection.execution_options(isolation_level="AUTOCOMMIT")
                return
            with connection.begin():
                if has_to_set:
                    connection.exec_driver_sql(sessions.SET_OPTIONS)
                if is_impatient:
                    connection.exec_driver_sql(_IMPATIENT)
                if plans_by_values:
                    connection.exec_driver_sql(_BY_VALUES)
                yield connection
    except SQLAlchemyError as error:
        meant = _meaning(error, session)
        if meant is None:
            raise
        raise meant from error


def allow_seconds(connection: Connection, seconds: float | None) -> None:
    """Of statements of this transaction, in place of 30: the server's limit, and ours. None: none."""
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round((seconds or 0) * 1000)}")
    spare = ANSWER_SECONDS - STATEMENT_SECONDS
    sessions.driver_of(connection).answer_seconds = None if seconds is None else seconds + spare


def execute_directly(connection: Connection, statement: TextClause, values: Mapping[str, Any]) -> list[Any]:
    """Rows of `statement`, as named tuples, straight from the driver; none if it returns none.

    For the few statements of every message: what SQLAlchemy does around each takes as long as the driver itself.
    It raises what `connection.execute` raises, and a connection that broke is given up in the same way.
    """
    driver, cursor = sessions.driver_of(connection), None
    try:
        cursor = driver.cursor(row_factory=namedtuple_row)
        cursor.execute(for_driver(statement), values)
        return cursor.fetchall() if cursor.pgresult.nfields else []
    except BaseException as error:
        # Its own errors, and its bookkeeping of the pool: a copy of that would go its own way some day.
        query = statement.text if isinstance(error, PsycopgError) else None
        connection._handle_dbapi_exception(error, query, None, cursor, None)


# A few are kept: those of `execute_directly` are constants.
@cache
def for_driver(statement: TextClause) -> str:
    """Its text as psycopg takes it."""
    return str(statement.compile(dialect=PGDialect_psycopg()))  # type: ignore[no-untyped-call]


def _meaning(error: SQLAlchemyError, session: sessions.DatabaseSession | None) -> ServiceUnavailable | None:
    """What to raise; None: the statement is at fault."""
    original = getattr(error, "orig", None)
    of_sessions = sessions.note_failure(session, original)
    if of_sessions is not None:
        return ServiceUnavailable(f"the database cannot be used now: {of_sessions}")
    state = getattr(original, "sqlstate", None) or ""
    if state == _CANCELLED:
        return StatementCancelled(
            "the database ended a statement: it took longer than "
            f"{sessions.OPTIONS['statement_timeout']}, or an administrator cancelled it"
        )
    if state in _HELD:
        return RowsHeld("the database cannot be used now: another session holds the rows")
    if is_temporary(error):
        cause = str(original or error).strip().splitlines() or [type(error).__name__]
        return ServiceUnavailable(f"the database cannot be used now: {cause[0]}")
    if state in _NOT_MIGRATED:
        return ServiceUnavailable("the database has not the tables of this version: run `notifier db upgrade`")
    if state.startswith(_OURS):
        words = "".join(str(original or "").splitlines()[:1])
        fix = "; `notifier doctor` (rights) says what to grant" if state == NO_RIGHT else ""
        return ServiceUnavailable(f"the database refuses notifier's statement: {words} ({state}){fix}")
    return None


def check_sessions(engine: Engine) -> sessions.DatabaseSession | None:
    """The sessions, after a look at what a pooler may do to them. None: not an engine of `make_engine`.

    Raises:
        ConfigurationError: work is not possible through this pooler.
        ServiceUnavailable: the database cannot be used now.
    """
    found: sessions.DatabaseSession | None = None
    for _ in range(2):
        try:
            with transaction(engine) as connection:
                found = sessions.session_of(connection)
                sessions.prepare_twice(connection)
        except ServiceUnavailable as error:
            if sessions.STATEMENT_MODE_FIX in str(error):
                raise ConfigurationError(sessions.STATEMENT_MODE_FIX, setting="NOTIFIER_DATABASE_URL") from error
            raise
        except PsycopgError as error:
            # Not by way of SQLAlchemy, which would have prepared it by itself much later.
            if sessions.note_failure(found, error) is None:
                raise ServiceUnavailable(f"the database cannot be used now: {type(error).__name__}") from error
    return found


def who_and_where(engine: Engine) -> tuple[str, str]:
    """(our role, our database)."""
    with transaction(engine) as connection:
        row = connection.exec_driver_sql("SELECT current_user, current_database()").one()
    return row[0], row[1]


def database_verdict(engine: Engine, *, trusts_failover: bool = False) -> IdentityCheck | None:
    """None: the database has no table that says which one it is.

    Raises:
        ServiceUnavailable: the database cannot be used now.
    """
    try:
        with engine.connect() as connection:
            return sessions.verdict_of(connection, trusts_failover=trusts_failover)
    except (SQLAlchemyError, PsycopgError) as error:
        raise ServiceUnavailable(f"the database cannot be used now: {type(error).__name__}") from error
