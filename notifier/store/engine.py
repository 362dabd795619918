"""Connections to Postgres, and the migrations that the command line and `notifier up` run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from notifier.config import bundled
from notifier.errors import ConfigurationError, ServiceUnavailable

T = TypeVar("T")

#: SQLSTATE classes (and single states) that say nothing about our statement: it may well work later.
#: 08 connection, 25006 read-only, 40 rollback (deadlock), 53 resources (disk, memory, connections),
#: 55 object in use, 57 operator (shutdown, crash), 58 system. https://www.postgresql.org/docs/current/errcodes-appendix.html
_TEMPORARY = ("08", "25006", "40", "53", "55", "57", "58")
#: "Undefined table" and "undefined column": the database is not at this version's revision, or not yet.
_NOT_MIGRATED = ("42P01", "42703")
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

    A pooled connection is tried before use, so a database that came back costs no failed statement.
    """
    return create_engine(
        database_url(url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=30,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args=_connect_args(application),
        # An error would hold the values of its statement: people's data, one-time codes.
        hide_parameters=True,
    )


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


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction, committed at the end.

    Raises:
        ServiceUnavailable: if the database cannot be used now. If the connection broke during the commit the
            work may or may not be in; callers look (claims and results are conditional, inserts idempotent).
    """
    try:
        with engine.begin() as connection:
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


# Any constant does, as long as nobody else uses it.
_MIGRATION_LOCK = 0x6E6F7468
#: An upgrade waits so long for a table that is in use, then lets through who waits behind it, and tries again:
#: a lock that is waited for stops everybody who comes later, and a long query or a backup keeps it waiting. Less
#: than the second after which Postgres looks for a deadlock, so that it is the upgrade that gives way. Seconds.
LOCK_SECONDS, LOCK_PAUSE_SECONDS = 0.5, 1.0
#: So often; then the upgrade is given up.
LOCK_TRIES = 60
#: "Lock not available" and "deadlock detected".
_IN_THE_WAY = ("55P03", "40P01")
_TABLES_IN_USE = (
    "a long transaction holds a table that is to be changed, so the upgrade is not complete: let it end "
    "(pg_stat_activity shows it), then run `notifier db upgrade` again"
)


def _alembic(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(bundled("migrations")).replace("%", "%%"))
    config.attributes["database_url"] = url
    return config


def upgrade(
    url: str,
    *,
    lock_seconds: float = LOCK_SECONDS,
    tries: int = LOCK_TRIES,
    more_revisions: Path | None = None,
) -> list[str]:
    """Bring the schema of the database to this version's, and make the partitions of the next months.

    Returns the names of the new partitions. Safe to run twice at once, and while programs work: nobody waits
    behind it for longer than `lock_seconds` and its own work. A database that a later version has upgraded stays
    as it is. `more_revisions` is a folder with revisions that come after ours, for tests.

    Raises:
        ServiceUnavailable: if the database cannot be reached, or its tables are not free of long transactions.
    """
    from notifier.store.partitions import ensure_partitions

    engine = create_engine(
        database_url(url), poolclass=NullPool, connect_args={"connect_timeout": 5}, hide_parameters=True
    )
    config = _alembic(url)
    if more_revisions is not None:
        ours = Path(ScriptDirectory.from_config(config).versions)
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", f"{ours}\n{more_revisions}".replace("%", "%%"))
    try:
        while _patiently(lambda: _migrate_once(engine, config, lock_seconds), tries):
            pass
        return _patiently(lambda: ensure_partitions(engine), tries)
    finally:
        engine.dispose()


def _migrate_once(engine: Engine, config: Config, lock_seconds: float) -> bool:
    """The next revision, in a transaction of its own; False if there was none to make.

    Not all in one: who holds one large table and waits for another meets programs that do it the other way round.
    """
    with transaction(engine) as connection:
        # Two at once would both make the first table: one waits for the other here.
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(lock_seconds * 1000)}")
        current = MigrationContext.configure(connection).get_current_revision()
        newest = ScriptDirectory.from_config(config).get_current_head()
        if current == newest or _is_of_later_version(current, config):
            return False
        config.attributes["connection"] = connection
        command.upgrade(config, "+1")
        return True


def _patiently(work: Callable[[], T], tries: int) -> T:
    """The result of `work`, which is tried again while somebody's lock is in its way."""
    while True:
        try:
            return work()
        except ServiceUnavailable as error:
            tries -= 1
            if getattr(getattr(error.__cause__, "orig", None), "sqlstate", None) not in _IN_THE_WAY:
                raise
            if not tries:
                raise ServiceUnavailable(_TABLES_IN_USE) from error
        time.sleep(LOCK_PAUSE_SECONDS)


def revisions(engine: Engine) -> tuple[str | None, str | None]:
    """(revision of the database, newest revision of this version); None where there is none."""
    newest = ScriptDirectory.from_config(_alembic("")).get_current_head()
    with transaction(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision(), newest


def missing_upgrade(engine: Engine) -> str | None:
    """What this version lacks in the database, and the fix; None if its tables are as new as we, or newer.

    Raises:
        ServiceUnavailable: if the database cannot be asked now.
    """
    current, newest = revisions(engine)
    if current == newest or _is_of_later_version(current, _alembic("")):
        return None
    has = f"is at revision {current}" if current else "has no tables"
    return f"the database {has}, this version needs {newest}: run `notifier db upgrade`"


def _is_of_later_version(revision: str | None, config: Config) -> bool:
    """Whether it is none of ours. Later ones only add, so this version works on them."""
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    return revision is not None and revision not in known
