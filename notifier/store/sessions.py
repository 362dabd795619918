"""What a session of ours is: its options, behind a pooler too, and that its database is still the one it was.

A pooler in transaction mode (pgbouncer, RDS Proxy, …) gives each transaction another session of the server. It
refuses or drops options of the start, keeps no prepared statement, and may lead to another database from one
transaction to the next. So each connection is looked at when it is made: where the options did not arrive they are
set with each transaction, and nothing is prepared where somebody stands between. The server's process id tells
that: a pooler gives its clients numbers of its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import OperationalError
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DisconnectionError

from notifier.domain.errors import DatabaseChanged
from notifier.store.clock import DatabaseClock
from notifier.store.identity import IdentityCheck, judge

#: A connection is tried before use if nobody has looked at it for so long. Seconds.
TRIED_AFTER_SECONDS = 1.0

#: Our statements find their rows by id or by an index made for them. Where the planner has no statistics
#: (a new month's partition, minutes old) it would rather read all of it, and keep that plan while the partition
#: grows; JIT would compile what it takes for dear. One plan serves each statement, whatever its values: planning
#: anew costs more than most of them do. Values as PostgreSQL shows them.
OPTIONS = {
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "1min",
    "timezone": "UTC",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}

START_OPTIONS = " ".join(f"-c {name}={value}" for name, value in OPTIONS.items())
_SETTINGS = ", ".join(f"current_setting('{name}')" for name in OPTIONS)
_LOOK = f"SELECT pg_backend_pid(), {_SETTINGS}"
#: One statement, for the transaction that it begins.
_SET = "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in OPTIONS.items())

#: pgbouncer: "unsupported startup parameter: options", "… in options: jit"; RDS Proxy: "command-line options".
_REFUSES_OPTIONS = re.compile(r"startup parameter|command-line option", re.IGNORECASE)
_STATEMENT_MODE = "statement pooling mode"
STATEMENT_MODE_FIX = (
    "the pooler gives every statement another session (pool_mode = statement), so there are no transactions: set "
    "pool_mode = transaction or session, or connect to PostgreSQL itself"
)
#: "Invalid statement name", "duplicate prepared statement": nothing was done, and nothing is prepared any more.
_PREPARED_LOST = ("26000", "42P05")
_SESSION = "notifier_session"


@dataclass(slots=True)
class Sessions:
    """What is known about all sessions of one engine."""

    #: Whether work is refused on a database that is not the one it was.
    guarded: bool = False
    #: A failover to a standby does not make it another one.
    trusts_failover: bool = False
    #: Our user may ask for the cluster's identifier and its timeline.
    has_control: bool = True
    #: A pooler does not take the options of the start.
    refuses_options: bool = False
    #: A prepared statement was lost although nobody seems to stand between.
    loses_prepared: bool = False


@dataclass(slots=True)
class DatabaseSession:
    """One connection as it was found."""

    of: Sessions
    #: Somebody stands between us and the server.
    is_pooled: bool
    #: Options that are not as they were asked for: they are set with each transaction. Name → what it is.
    wrong: dict[str, str] = field(default_factory=dict)
    looked_at: float = 0.0
    verdict: IdentityCheck | None = None
    #: It was given back to the pool before.
    is_used: bool = False


def watch(engine: Engine, sessions: Sessions, clock: DatabaseClock) -> None:
    """Have the engine look at its connections when they are made, and again before use when nobody did for long.

    SQLAlchemy's `pool_pre_ping` tries each time: a round trip more for every transaction. We ask for the time.
    """

    def open_one(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
        return _open(sessions, arguments, options)

    def look(connection: psycopg.Connection[Any], record: Any) -> None:
        # Perhaps to another server, after a failover.
        clock.expect_another()
        try:
            record.info[_SESSION] = _look(connection, sessions)
        except BaseException:
            connection.close()
            raise

    def try_it(connection: psycopg.Connection[Any], record: Any, _proxy: object) -> None:
        session: DatabaseSession = record.info[_SESSION]
        if sessions.loses_prepared:
            connection.prepare_threshold = None
        is_barred = session.verdict is not None and session.verdict.is_another
        if not (is_barred or clock.is_due) and time.monotonic() - session.looked_at <= TRIED_AFTER_SECONDS:
            return
        try:
            _try(connection, session, clock)
        except OperationalError as error:
            # The pool opens another one.
            raise DisconnectionError from error

    def give_back(_connection: object, record: Any) -> None:
        if _SESSION in record.info:
            record.info[_SESSION].is_used = True

    event.listen(engine, "do_connect", open_one)
    event.listen(engine, "connect", look)
    event.listen(engine, "checkout", try_it)
    event.listen(engine, "checkin", give_back)


def _open(sessions: Sessions, arguments: list[Any], options: dict[str, Any]) -> Any:
    """A connection, without our options where they are refused; None: SQLAlchemy opens it."""
    if sessions.refuses_options:
        options.pop("options", None)
        return None
    try:
        return psycopg.connect(*arguments, **options)
    except OperationalError as error:
        if not _REFUSES_OPTIONS.search(str(error)):
            raise
    sessions.refuses_options = True
    options.pop("options", None)
    return psycopg.connect(*arguments, **options)


def _look(connection: psycopg.Connection[Any], sessions: Sessions) -> DatabaseSession:
    with _autocommit(connection):
        found = connection.execute(_LOOK, prepare=False).fetchone()
    assert found is not None
    pid, *settings = found
    wrong = {
        name: setting for (name, value), setting in zip(OPTIONS.items(), settings, strict=True) if setting != value
    }
    session = DatabaseSession(sessions, pid != connection.info.backend_pid, wrong)
    if session.is_pooled or wrong or sessions.loses_prepared:
        connection.prepare_threshold = None
    if not sessions.guarded:
        session.looked_at = time.monotonic()
    return session


def _try(connection: psycopg.Connection[Any], session: DatabaseSession, clock: DatabaseClock) -> None:
    with _autocommit(connection):
        if session.of.guarded:
            session.verdict = _judge(connection, session.of)
        if clock.is_due or not session.of.guarded:
            clock.measure(connection)
    session.looked_at = time.monotonic()


def _judge(connection: psycopg.Connection[Any], sessions: Sessions) -> IdentityCheck | None:
    verdict = judge(connection, with_control=sessions.has_control, trusts_failover=sessions.trusts_failover)
    if verdict is not None and verdict.current.system_identifier is None:
        sessions.has_control = False
    return verdict


@contextmanager
def _autocommit(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Without BEGIN and ROLLBACK around it."""
    before = connection.autocommit
    connection.autocommit = True
    try:
        yield
    finally:
        if not connection.closed:
            connection.autocommit = before


def session_of(connection: Connection) -> DatabaseSession | None:
    """What is known about it; None: its engine is not one of the programs'."""
    found: DatabaseSession | None = connection.info.get(_SESSION)
    return found


def is_used(connection: Connection) -> bool:
    """Whether somebody had it before."""
    session = session_of(connection)
    return session is not None and session.is_used


def prepares(connection: Connection) -> bool:
    """Whether the driver prepares statements on it."""
    return _driver(connection).prepare_threshold is not None


def prepare_nothing(connection: Connection) -> None:
    """From here on. What was prepared is not used any more."""
    _driver(connection).prepare_threshold = None


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def refuse_another_database(session: DatabaseSession) -> None:
    """Raise if its database is not the one it was.

    Raises:
        DatabaseChanged: with what differs, and the fix.
    """
    if session.verdict is not None and session.verdict.is_another:
        raise DatabaseChanged(session.verdict.in_words)


def set_options(connection: Connection) -> None:
    """Set them for the transaction that is begun."""
    connection.exec_driver_sql(_SET)


def note_failure(session: DatabaseSession | None, error: BaseException | None) -> str | None:
    """What an error of a statement says about the sessions, and is no fault of the statement's; None: nothing."""
    if _STATEMENT_MODE in str(error):
        return STATEMENT_MODE_FIX
    if getattr(error, "sqlstate", None) not in _PREPARED_LOST:
        return None
    if session is not None:
        session.of.loses_prepared = True
    return "a pooler lost our prepared statements; from now on there are none"


def in_words(session: DatabaseSession) -> str:
    """How we work with these sessions."""
    if not session.is_pooled and not session.wrong:
        return "as they were asked for"
    how = ["nothing is prepared"]
    if session.wrong:
        how.insert(0, f"{len(session.wrong)} options did not arrive and are set with each transaction")
    return f"a pooler hands them out: {', and '.join(how)}"


def role_statements(role: str, database: str) -> list[str]:
    """What makes the options the defaults of a role: they need not be set with each transaction then."""

    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    start = f"ALTER ROLE {quoted(role)} IN DATABASE {quoted(database)} SET"
    return [f"{start} {name} = '{value}';" for name, value in OPTIONS.items()]


def prepare_twice(connection: Connection) -> None:
    """Execute a prepared statement, as the driver would do by itself. To be called in two transactions."""
    if prepares(connection):
        _driver(connection).execute("SELECT 'notifier'", prepare=True)


def verdict_of(connection: Connection, *, trusts_failover: bool = False) -> IdentityCheck | None:
    """Whether it is the database it was; None: it has no table that could say so. Not within a transaction."""
    raw = _driver(connection)
    with _autocommit(raw):
        return judge(raw, trusts_failover=trusts_failover)
