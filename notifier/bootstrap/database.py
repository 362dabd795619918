"""The database of a process: its engine, and the checks before a program begins."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import Engine

from notifier.config.logs import log
from notifier.config.settings import Settings
from notifier.domain.errors import ServiceUnavailable
from notifier.store.connection_pool import DatabaseSession
from notifier.store.engine import check_sessions, make_engine
from notifier.store.schema.revisions import missing_upgrade

#: A program that starts before `notifier db upgrade` checks again after this. Seconds.
_LOOK_SECONDS = 1.0


@dataclass
class Database:
    """The engine, and the checks before a program begins. One for each process."""

    settings: Settings
    #: Connections that the process keeps open; twice as many under load.
    pool_size: int = 5
    #: The name shown in pg_stat_activity.
    application: str = "notifier"
    #: It does nothing if the database is not the one it was. Commands may look, and act for an operator.
    guarded: bool = True

    @cached_property
    def engine(self) -> Engine:
        return make_engine(
            self.settings.require("database_url"),
            pool_size=self.pool_size,
            application=self.application,
            guarded=self.guarded,
            trusts_failover=self.settings.trust_failover,
        )

    def wait_for_tables(self, stop: threading.Event) -> None:
        """Return when the database has this version's tables and is the one it was, or `stop` is set.

        Otherwise a program on older tables would do half its work, for example call a provider and then be unable
        to record the answer. Tables of a later version are also right.

        Raises:
            ConfigurationError: a pooler in front of the database makes work impossible.
        """
        logged: str | None = None
        while not stop.is_set():
            try:
                session = check_sessions(self.engine)
                missing = missing_upgrade(self.engine)
            except ServiceUnavailable as error:
                missing = str(error)
            else:
                if missing is None:
                    _log_pooler(session)
                    return
            if missing != logged:
                log.warning("database.waiting", reason=missing)
            logged = missing
            stop.wait(_LOOK_SECONDS)

    def check_pooler(self) -> None:
        """For a program that starts without the database: refuse a pooler that makes work impossible.

        Raises:
            ConfigurationError: says how to fix it.
        """
        try:
            _log_pooler(check_sessions(self.engine))
        except ServiceUnavailable:
            pass  # every answer says so

    def close(self) -> None:
        if "engine" in self.__dict__:
            self.engine.dispose()


def _log_pooler(session: DatabaseSession | None) -> None:
    if session is not None and (session.is_pooled or session.wrong):
        log.info("database.pooled", reason=session.in_words)
