"""Upgrades a database to the tables of this version, for `notifier db upgrade`, `notifier up` and tests.

Only this module imports alembic, which takes 0.2 s and 7 MB. No long-running program imports it.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from notifier.config.settings import bundled
from notifier.domain.errors import ConfigurationError
from notifier.store.advisory_locks import AdvisoryLock, take_lock
from notifier.store.database_url import database_url
from notifier.store.engine import database_verdict, transaction
from notifier.store.identity import store_first
from notifier.store.schema.partitions import ensure_partitions
from notifier.store.schema.revisions import unreleased_tables
from notifier.store.schema.table_locks import LOCK_SECONDS, LOCK_TRIES, patiently


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

    Returns the names of the new partitions. Safe to run twice at the same time, and while programs work: nobody
    waits for it longer than `lock_seconds` and the time of its own work. A database that a later version has
    upgraded stays as it is. `more_revisions`: a folder with revisions that come after ours, for tests.

    Raises:
        ConfigurationError: the tables are from before the first release; the text says what to do.
        ServiceUnavailable: the database cannot be reached, long transactions hold its tables, or a month could
            not be made; the other months are.
    """
    engine = create_engine(
        database_url(url),
        poolclass=NullPool,
        # Behind a pooler the next transaction has another session, which does not know prepared statements.
        connect_args={"connect_timeout": 5, "prepare_threshold": None},
        hide_parameters=True,
    )
    config = _alembic(url)
    if more_revisions is not None:
        ours = Path(ScriptDirectory.from_config(config).versions)
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", f"{ours}\n{more_revisions}".replace("%", "%%"))
    try:
        while patiently(lambda: _migrate_once(engine, config, lock_seconds), tries):
            pass
        patiently(lambda: _note_identity(engine), tries)
        made = ensure_partitions(engine, tries=tries)
        made.raise_failures()
        return made.names
    finally:
        engine.dispose()


def _migrate_once(engine: Engine, config: Config, lock_seconds: float) -> bool:
    """Apply the next revision, in a transaction of its own. False: there was none.

    A single transaction for all revisions would hold one large table while it waits for another, and could
    deadlock with programs that lock them in the other order.
    """
    with transaction(engine) as connection:
        # Two upgrades at the same time would both make the first table, so one waits for the other here.
        take_lock(connection, AdvisoryLock.SCHEMA_UPGRADE)
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(lock_seconds * 1000)}")
        # The role may have a timeout, meant for the programs.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        current = MigrationContext.configure(connection).get_current_revision()
        unreleased = unreleased_tables(connection, current)
        if unreleased is not None:
            raise ConfigurationError(unreleased, setting="NOTIFIER_DATABASE_URL")
        scripts = ScriptDirectory.from_config(config)
        known = {script.revision for script in scripts.walk_revisions()}
        if current == scripts.get_current_head() or (current is not None and current not in known):
            return False
        config.attributes["connection"] = connection
        command.upgrade(config, "+1")
        return True


def _note_identity(engine: Engine) -> None:
    """Store the database's identity, unless it has one: the identity of a restored backup must stay and be
    noticed."""
    verdict = database_verdict(engine)
    if verdict is not None and verdict.stored is None:
        with transaction(engine) as connection:
            store_first(connection, verdict.current)
