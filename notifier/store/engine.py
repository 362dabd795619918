"""Connections to Postgres: their deadlines, transactions, and what an error of theirs means."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from psycopg import OperationalError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from notifier.errors import ConfigurationError, ServiceUnavailable

#: A connection that nobody used for longer is tried first. Seconds.
TRIED_AFTER_SECONDS = 1.0
_RESTS_SINCE = "rests_since"

#: SQLSTATE classes (and single states) that say nothing about our statement: it may well work later.
#: 08 connection, 25006 read-only, 40 rollback (deadlock), 53 resources (disk, memory, connections),
#: 55 object in use, 57 operator (shutdown, crash), 58 system. https://www.postgresql.org/docs/current/errcodes-appendix.html
_TEMPORARY = ("08", "25006", "40", "53", "55", "57", "58")
#: "Undefined table" and "undefined column": the database is not at this version's revision, or not yet.
_NOT_MIGRATED = ("42P01", "42703")
#: The session does not have our prepared statement, or has another one under its name: a pooler gave us another
#: session, or somebody ran DEALLOCATE. Another connection has its own.
_LOST_STATEMENTS = ("26000", "42P05")
#: Everything else about our statements, such as a right that our user lacks (42501): never a message's fault.
_OURS = "42"


def database_url(url: str) -> URL:
    """The URL with our driver in it.

    Raises:
        ConfigurationError: if it is no PostgreSQL URL. The text holds no part of the URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigurationError(
            "the database URL is not one of PostgreSQL: write postgresql://user:password@host:5432/name",
            setting="NOTIFIER_DATABASE_URL",
        )
    return parsed.set(drivername="postgresql+psycopg")


def make_engine(url: str, *, pool_size: int = 5, application: str = "notifier") -> Engine:
    """An engine whose every wait has an end: 5 s to connect, 30 s a statement, dead peers found by keepalives.

    A pooled connection that rested is tried before use, so a database that came back costs no failed statement.
    """
    engine = create_engine(
        database_url(url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=30,
        pool_recycle=1800,
        connect_args=_connect_args(application),
        # An error would hold the values of its statement: people's data, one-time codes.
        hide_parameters=True,
    )
    _try_rested(engine)
    event.listen(engine, "handle_error", _leave_broken_session)
    return engine


def _try_rested(engine: Engine) -> None:
    """Have it try connections that rested. SQLAlchemy's `pool_pre_ping` tries each time: a round trip more for
    every transaction."""

    def note(_connection: object, record: Any) -> None:
        record.info[_RESTS_SINCE] = time.monotonic()

    def try_it(connection: Any, record: Any, _proxy: object) -> None:
        now = time.monotonic()
        if now - record.info.get(_RESTS_SINCE, now) > TRIED_AFTER_SECONDS:
            try:
                engine.dialect.do_ping(connection)
            except OperationalError as error:
                # The pool opens another one.
                raise DisconnectionError from error

    event.listen(engine, "checkin", note)
    event.listen(engine, "checkout", try_it)


def _leave_broken_session(context: ExceptionContext) -> None:
    """Close a session that lost our prepared statement: everything would fail by it. To who waits for a database
    that is away, it is one."""
    if getattr(context.original_exception, "sqlstate", None) in _LOST_STATEMENTS:
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


#: Our statements find their rows by id or by an index made for them. Where the planner has no statistics
#: (a new month's partition, minutes old) it would rather read all of it, and keep that plan while the partition
#: grows; JIT would compile what it takes for dear.
_OPTIONS = {
    "statement_timeout": "30000",
    "idle_in_transaction_session_timeout": "60000",
    "timezone": "UTC",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


def _connect_args(application: str) -> dict[str, Any]:
    return {
        "connect_timeout": 5,
        "application_name": application,
        "options": " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items()),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30000,
    }


def is_temporary(error: SQLAlchemyError) -> bool:
    """Whether the database could not be used at all just now, as opposed to refusing this statement."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    # No SQLSTATE: the connection was never made, or broke under the statement.
    return error.connection_invalidated or state is None or state.startswith(_TEMPORARY)


_UNPREPARED: ContextVar[bool] = ContextVar("unprepared", default=False)
#: Stands in the `info` of a connection after its first use.
_WAS_USED = "was_used"


@contextmanager
def unprepared() -> Iterator[None]:
    """Within this, transactions of this thread go by connections that prepare nothing, new ones if need be: what
    failed by its session does not fail so again."""
    token = _UNPREPARED.set(True)
    try:
        yield
    finally:
        _UNPREPARED.reset(token)


def _connect(engine: Engine) -> Connection:
    connection = engine.connect()
    while _UNPREPARED.get() and _prepares(connection):
        if _WAS_USED not in connection.info:
            _driver(connection).prepare_threshold = None
            break
        connection.invalidate()
        connection.close()
        connection = engine.connect()
    connection.info[_WAS_USED] = True
    return connection


def _prepares(connection: Connection) -> bool:
    return _driver(connection).prepare_threshold is not None


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


@contextmanager
def transaction(engine: Engine, *, is_one_statement: bool = False) -> Iterator[Connection]:
    """One transaction, committed at the end. Of `is_one_statement` each commits itself: that saves the round trips
    of BEGIN and COMMIT.

    Raises:
        ServiceUnavailable: if the database cannot be used now. If the connection broke during the commit the
            work may or may not be in; callers look (claims and results are conditional, inserts idempotent).
    """
    try:
        if is_one_statement:
            with _connect(engine).execution_options(isolation_level="AUTOCOMMIT") as connection:
                yield connection
            return
        with _connect(engine) as connection, connection.begin():
            yield connection
    except SQLAlchemyError as error:
        if is_temporary(error):
            cause = str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__]
            raise ServiceUnavailable(f"the database cannot be used now: {cause[0]}") from error
        state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
        if state in _NOT_MIGRATED:
            text = "the database has not the tables of this version: run `notifier db upgrade`"
            raise ServiceUnavailable(text) from error
        if state.startswith(_OURS):
            words = str(getattr(error, "orig", "")).splitlines()[:1]
            text = (
                f"the database refuses notifier's statement: {''.join(words)} ({state}); check the user's rights"
            )
            raise ServiceUnavailable(text) from error
        raise
