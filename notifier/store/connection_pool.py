"""The connections of a pool: how they are opened, examined when new, and tried before they are used again.

A connection of the pool leads to a session of the server. Three things are found out about it: whether it has the
options that we asked for, whether a pooler stands in between, and whether the database is still the same one.

A pooler in transaction mode (pgbouncer, RDS Proxy, …) gives each transaction another session of the server. It
refuses or drops startup options, keeps no prepared statements, and may lead to another database from one
transaction to the next. So each new connection is examined. Options that did not arrive are set with each
transaction, and behind a pooler nothing is prepared. The server's process id shows whether there is a pooler,
because a pooler gives its clients numbers of its own.
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
from psycopg.errors import ConnectionTimeout
from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError

from notifier.domain.errors import ConfigurationError
from notifier.store.clock import DatabaseClock
from notifier.store.connection import ANSWER_SECONDS, CONTACT_SECONDS, Contact, DeadlineConnection, ServerSilent
from notifier.store.identity import IdentityCheck, SeenTimeline, judge
from notifier.store.session_options import OPTIONS

#: A connection that was not used for this long is tried before use. Seconds.
TRIED_AFTER_SECONDS = 1.0

OLDEST_VERSION = 150_000

_SETTINGS = ", ".join(f"current_setting('{name}')" for name in OPTIONS)
_LOOK = f"SELECT pg_backend_pid(), current_setting('transaction_read_only') = 'on', {_SETTINGS}"
#: pgbouncer: "unsupported startup parameter: options", "… in options: jit"; RDS Proxy: "command-line options".
_REFUSES_OPTIONS = re.compile(r"startup parameter|command-line option", re.IGNORECASE)
_STATEMENT_MODE = "statement pooling mode"
STATEMENT_MODE_FIX = (
    "the pooler gives every statement another session (pool_mode = statement), so there are no transactions: set "
    "pool_mode = transaction or session, or connect to PostgreSQL itself"
)
#: "Invalid statement name", "duplicate prepared statement": nothing was done, the prepared statements are lost.
_PREPARED_LOST = ("26000", "42P05")
#: "Read-only SQL transaction".
_READ_ONLY = "25006"
_TAKES_NO_WRITES = (
    "the server takes no writes: it is a standby, or default_transaction_read_only is on. Programs wait for one "
    "that takes them"
)
_SESSION = "notifier_session"


@dataclass(slots=True)
class Sessions:
    """What is known about all sessions of one engine."""

    #: Refuse to work on a database that was replaced by another one.
    guarded: bool = False
    #: A failover to a standby does not count as another database.
    trusts_failover: bool = False
    #: Our role may read the cluster's identifier and its timeline.
    has_control: bool = True
    #: A pooler refuses startup options.
    refuses_options: bool = False
    #: A prepared statement was lost although there seems to be no pooler.
    loses_prepared: bool = False
    contact: Contact = field(default_factory=Contact)
    seen: SeenTimeline = field(default_factory=SeenTimeline)


@dataclass(slots=True)
class DatabaseSession:
    of: Sessions
    #: A pooler stands between us and the server.
    is_pooled: bool
    #: Options that did not arrive and are set with each transaction: name → the value that they have.
    wrong: dict[str, str] = field(default_factory=dict)
    looked_at: float = 0.0
    verdict: IdentityCheck | None = None
    #: It was given back to the pool before.
    is_used: bool = False

    @property
    def in_words(self) -> str:
        if not self.is_pooled and not self.wrong:
            return "have the options that programs ask for"
        how = ["nothing is prepared"]
        if self.wrong:
            how.insert(0, f"{len(self.wrong)} options did not arrive and are set with each transaction")
        return f"a pooler hands them out: {', and '.join(how)}"

    @property
    def refusal(self) -> str | None:
        """Why it must not be used: it leads to another database. None: it may be used."""
        return self.verdict.in_words if self.verdict is not None and self.verdict.is_another else None


def watch(engine: Engine, sessions: Sessions, clock: DatabaseClock) -> None:
    """Make the engine examine new connections, and try those that rested before they are used.

    SQLAlchemy's `pool_pre_ping` tries every time, which costs another round trip for every transaction.
    """

    def open_one(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
        return _open(sessions, arguments, options)

    def look(connection: DeadlineConnection, record: Any) -> None:
        clock.expect_another()
        try:
            with sessions.contact.attempt(), connection.within(CONTACT_SECONDS):
                record.info[_SESSION] = _look(connection, sessions)
        except BaseException:
            connection.close()
            raise

    def try_it(connection: DeadlineConnection, record: Any, _proxy: object) -> None:
        session: DatabaseSession = record.info[_SESSION]
        if sessions.loses_prepared:
            connection.prepare_threshold = None
        has_rested = time.monotonic() - session.looked_at > TRIED_AFTER_SECONDS
        if not (session.refusal or clock.is_due or has_rested):
            return
        try:
            with sessions.contact.attempt(), connection.within(CONTACT_SECONDS):
                _try(connection, session, clock)
        except ServerSilent as error:
            # The other connections of the pool lead to the same silent server.
            raise InvalidatePoolError from error
        except OperationalError as error:
            # The pool opens another connection.
            raise DisconnectionError from error

    def give_back(connection: DeadlineConnection | None, record: Any) -> None:
        if connection is not None:
            connection.answer_seconds = ANSWER_SECONDS
        if _SESSION in record.info:
            record.info[_SESSION].is_used = True

    def leave_read_only(context: ExceptionContext) -> None:
        # The server was a primary once, or the pooler now leads elsewhere, so no statement of ours will succeed
        # here. The pool opens new connections, which may lead to the primary.
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
            context.is_disconnect = True

    event.listen(engine, "handle_error", leave_read_only)
    event.listen(engine, "do_connect", open_one)
    event.listen(engine, "connect", look)
    event.listen(engine, "checkout", try_it)
    event.listen(engine, "checkin", give_back)


def _open(sessions: Sessions, arguments: list[Any], options: dict[str, Any]) -> DeadlineConnection:
    """Open a connection; without our options if they are refused."""
    connection = _connect(sessions, arguments, options)
    info = connection.info
    if problem := unfit(info.server_version, info.parameter_status("server_encoding")):
        connection.close()
        raise ConfigurationError(problem, setting="NOTIFIER_DATABASE_URL")
    # The URL may name several servers; only this one's answer counts for this connection.
    this = {"host": info.host, "hostaddr": info.hostaddr, "port": info.port}
    connection.is_there = lambda: _is_there(sessions, arguments, {**options, **this})
    return connection


def unfit(version: int, encoding: str | None) -> str | None:
    """Why this server or this database cannot be used. None: it can. `version` as in libpq: 150018 is 15.18."""
    if version < OLDEST_VERSION:
        return f"the server is PostgreSQL {version // 10_000}: {OLDEST_VERSION // 10_000} or newer is needed"
    if encoding not in ("UTF8", None):
        return (
            f"the database's encoding is {encoding}, which cannot hold every text: create it with "
            "ENCODING 'UTF8' TEMPLATE template0"
        )
    return None


def _is_there(sessions: Sessions, arguments: list[Any], options: dict[str, Any]) -> bool:
    try:
        _connect(sessions, arguments, dict(options)).close()
    except (ServerSilent, ConnectionTimeout):
        return False
    except OperationalError:
        pass  # it refuses the connection, so it is there
    return True


def _connect(sessions: Sessions, arguments: list[Any], options: dict[str, Any]) -> DeadlineConnection:
    with sessions.contact.attempt():
        if not sessions.refuses_options:
            try:
                return DeadlineConnection.connect(*arguments, **options)
            except OperationalError as error:
                if not _REFUSES_OPTIONS.search(str(error)):
                    raise
            sessions.refuses_options = True
        options.pop("options", None)
        return DeadlineConnection.connect(*arguments, **options)


def _look(connection: psycopg.Connection[Any], sessions: Sessions) -> DatabaseSession:
    with _autocommit(connection):
        found = connection.execute(_LOOK, prepare=False).fetchone()
    assert found is not None
    pid, is_read_only, *settings = found
    if is_read_only and sessions.guarded:
        # Statements that only read would succeed here, so nobody would look for the primary.
        raise OperationalError(_TAKES_NO_WRITES)
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
            sessions = session.of
            session.verdict = judge(
                connection,
                with_control=sessions.has_control,
                trusts_failover=sessions.trusts_failover,
                seen=sessions.seen,
            )
            if session.verdict is not None and session.verdict.current.system_identifier is None:
                sessions.has_control = False
        if clock.is_due or not session.of.guarded:
            clock.measure(connection)
    session.looked_at = time.monotonic()


@contextmanager
def _autocommit(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Without BEGIN and ROLLBACK around the statements."""
    before = connection.autocommit
    connection.autocommit = True
    try:
        yield
    finally:
        if not connection.closed:
            connection.autocommit = before


def session_of(connection: Connection) -> DatabaseSession | None:
    """The session of a connection. None: its engine was not made by `make_engine`."""
    found: DatabaseSession | None = connection.info.get(_SESSION)
    return found


def is_used(connection: Connection) -> bool:
    """Whether the pool has handed this connection out before."""
    session = session_of(connection)
    return session is not None and session.is_used


def prepares(connection: Connection) -> bool:
    """Whether the driver prepares statements on this connection."""
    return driver_of(connection).prepare_threshold is not None


def prepare_nothing(connection: Connection) -> None:
    """From now on, prepare nothing on this connection, and use nothing that was prepared."""
    driver_of(connection).prepare_threshold = None


def driver_of(connection: Connection) -> Any:
    """psycopg's connection below SQLAlchemy's."""
    return connection.connection.driver_connection


def note_failure(session: DatabaseSession | None, error: BaseException | None) -> str | None:
    """What an error says about the sessions, if the statement is not at fault. None: nothing."""
    if _STATEMENT_MODE in str(error):
        return STATEMENT_MODE_FIX
    if getattr(error, "sqlstate", None) not in _PREPARED_LOST:
        return None
    if session is not None:
        session.of.loses_prepared = True
    return "a pooler lost our prepared statements; from now on there are none"


def prepare_twice(connection: Connection) -> None:
    """Execute a prepared statement as the driver does by itself. To be called in two transactions."""
    if prepares(connection):
        driver_of(connection).execute("SELECT 'notifier'", prepare=True)


def verdict_of(connection: Connection, *, trusts_failover: bool = False) -> IdentityCheck | None:
    """Whether this is still the same database. None: it has no table that says so. Not within a transaction."""
    raw = driver_of(connection)
    with _autocommit(raw):
        return judge(raw, trusts_failover=trusts_failover)
