"""PostgreSQL for the explorer: statements and commits are steps, connections break on command, and the clock can
be moved.

Nothing of the product is replaced. Its engine gets connections of our own class. `now()` in its statements finds
`explore.now()` first, because the schema `explore` precedes `pg_catalog` in the search path.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection
from typing import Any
from uuid import UUID

import psycopg
from psycopg import pq
from psycopg.rows import dict_row
from sqlalchemy import Engine, TextClause, event

from chaos.explore.clock import Clock
from chaos.explore.steps import Died, Kind, Option, Stage, Step, current
from notifier.store.connection import DeadlineConnection
from notifier.store.engine import for_driver, make_engine

Mutation = Callable[[str], str]

#: psycopg's own default.
_PREPARE_AFTER = 5
_SETTING = "explore.time"
# It stands still between jumps, so that the speed of this machine decides nothing. The planner inlines it, and
# uses an index on due_at as with the real function.
_NOW = f"""
CREATE SCHEMA explore;
CREATE FUNCTION explore.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT to_timestamp(nullif(current_setting('{_SETTING}', true), '')::float8)
$$;
CREATE FUNCTION explore.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT explore.now()';
"""
_SETTINGS = (
    "search_path = explore, pg_catalog, public",
    # Planning is half of the work, so each statement is planned once.
    "plan_cache_mode = force_generic_plan",
    "synchronous_commit = off",
)
# Defaults were bound to the real function when the tables were made.
_DEFAULTS = """
SELECT c.table_name, c.column_name FROM information_schema.columns AS c
WHERE c.table_schema = 'public' AND c.column_default = 'now()'
"""
# The product's tables. A month is emptied together with its table.
_TABLES = """
SELECT c.relname FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relname <> 'alembic_version'
"""


class Broken(psycopg.OperationalError):
    """The connection broke. As a program sees it, the error has no SQLSTATE."""


class _Cursor(psycopg.Cursor[Any]):
    """A cursor whose statements are steps, whether SQLAlchemy or the product itself executes them."""

    def execute(self, query: Any, params: Any = None, **_: Any) -> Any:
        connection: Any = self.connection
        connection.database.execute(self, query if isinstance(query, str) else query.decode(), params)
        return self

    def execute_now(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Execute without a step."""
        return super().execute(query, params, **options)

    # A short version, because the driver's takes as long as a statement.
    @property
    def description(self) -> Any:
        result = self.pgresult
        if result is None or not result.nfields:
            return None
        names = (result.fname(place) or b"" for place in range(result.nfields))
        return [
            (name.decode(), result.ftype(place), None, None, None, None, None) for place, name in enumerate(names)
        ]


class SteppedConnection(DeadlineConnection):
    """A connection whose commits are steps. After it broke it is cleaned up and reused, because a new one costs as
    much as ten statements."""

    database: Database
    is_broken = False
    #: The time that its session sees.
    time = 0.0

    @property
    def closed(self) -> bool:
        return self.is_broken or self.pgconn.status == pq.ConnStatus.BAD

    def break_off(self) -> None:
        """Break the connection. The server notices at once, and rolls back what was in progress."""
        if not self.is_broken:
            self.is_broken = True
            if self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
                self.pgconn.exec_(b"ROLLBACK")
            self._let_go()

    def close(self) -> None:
        self.break_off()
        self.database.spare.append(self)

    def execute(self, *arguments: Any, **options: Any) -> Any:
        """A statement that the product executes outside its engine, such as asking for the time. Not a step."""
        self.set_clock(self.database.clock.database)
        return self.cursor().execute_now(*arguments, **options)  # type: ignore[attr-defined]

    def commit(self) -> None:
        actor = current()
        if actor is None or not self.database.written(self):
            # The commit of a transaction that only read changes nothing.
            if not self.is_broken:
                super().commit()
                self._let_go()
            return
        option = self.database.stage.step(Step(Kind.COMMIT, "commit", writes=self.database.written(self)))
        if option in (Option.NOT_DONE, Option.DIES):
            self._end(option)
        super().commit()
        self._let_go()
        if option is not Option.DONE:
            self._end(option)

    def rollback(self) -> None:
        if not self.is_broken:
            super().rollback()
            self._let_go()

    def _let_go(self) -> None:
        self.database.touched.pop(self, None)
        actor = current()
        if actor is not None:
            actor.holds_locks = False

    def _end(self, option: Option) -> None:
        self.break_off()
        raise Died if option.is_death else Broken(f"the connection broke: {option.name.lower()}")

    def set_clock(self, time: float) -> None:
        """Set the clock before a transaction begins; within a transaction, `now()` stands still."""
        if self.time != time and self.pgconn.transaction_status == pq.TransactionStatus.IDLE:
            self.pgconn.exec_(f"SET {_SETTING} = '{time:.3f}'".encode())
            self.time = time


class Database:
    """One database made for the explorer, and the engine for the product's code."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.clock = clock
        self.stage = Stage(self)
        self.connections: list[SteppedConnection] = []
        #: Connections that broke and are clean again.
        self.spare: list[SteppedConnection] = []
        #: For connections in a transaction: the tables that it has written.
        self.touched: dict[SteppedConnection, frozenset[str]] = {}
        #: Changes statements before they are sent, to prove that the explorer finds the resulting fault.
        self.mutation: Mutation | None = None
        self.mutated = 0
        self._url = url
        self._statements: dict[str, tuple[str, frozenset[str], frozenset[str]] | None] = {}
        self._names = _names()
        self.engine = self._make_engine(url)
        self.observer: psycopg.Connection[dict[str, Any]] = psycopg.connect(
            url, autocommit=True, row_factory=dict_row
        )
        self.observer.prepare_threshold = 0
        self._tables = {row["relname"] for row in self.observer.execute(_TABLES).fetchall()}

    def close(self) -> None:
        self.engine.dispose()
        self.observer.close()
        for connection in self.connections:
            psycopg.Connection.close(connection)

    def begin(self) -> None:
        """Undo what an earlier schedule did to the sessions."""
        for connection in self.connections:
            connection.prepare_threshold = _PREPARE_AFTER

    def waiting(self, backends: Collection[int]) -> set[int]:
        """See `steps.Waits`."""
        rows = self.observer.execute(
            "SELECT pid FROM pg_locks WHERE NOT granted AND pid = ANY(%s)", [list(backends)]
        )
        return {row["pid"] for row in rows.fetchall()}

    def empty(self) -> None:
        """Delete what earlier schedules left."""
        self.observer.execute(f"TRUNCATE {', '.join(sorted(self._tables))}")

    def clear(self) -> None:
        """Delete what is there if it is little, without creating files anew."""
        statements = "; ".join(f"DELETE FROM {table}" for table in sorted(self._tables))
        self.observer.execute(statements, prepare=False)

    def park(self, ids: Collection[UUID]) -> None:
        """Hide notifications that have not come to rest from the sweeps of later scenes."""
        self.observer.execute("UPDATE states SET due_at = NULL WHERE id = ANY(%s)", [list(ids)])

    def next_due(self, ids: Collection[UUID]) -> float | None:
        """Seconds until something has to happen to one of them; None: never."""
        row = self.observer.execute(
            "SELECT extract(epoch FROM min(due_at)) AS due FROM notifications WHERE id = ANY(%s)", [list(ids)]
        ).fetchone()
        return None if row is None or row["due"] is None else float(row["due"]) - self.clock.database

    def written(self, connection: SteppedConnection) -> frozenset[str]:
        """The tables that the connection's transaction has written."""
        return self.touched.get(connection, frozenset())

    def _make_engine(self, url: str) -> Engine:
        engine = make_engine(url, pool_size=8)
        # Uses the same few connections again and again, because each must be told a new time by a statement.
        engine.pool._pool.use_lifo = True  # type: ignore[attr-defined]
        database = self

        def connect(_dialect: Any, _record: Any, args: Any, parameters: dict[str, Any]) -> SteppedConnection:
            if database.spare:
                connection = database.spare.pop()
                connection.is_broken = False
                connection.autocommit = False
                connection._notice_handlers.clear()
                return connection
            connection = SteppedConnection.connect(*args, **parameters, cursor_factory=_Cursor)
            connection.database = database
            database.connections.append(connection)
            return connection

        event.listen(engine, "do_connect", connect)
        # Before the product's own listener, which would open a connection of another class.
        engine.dialect.dispatch.do_connect.listeners.rotate(1)
        event.listen(engine, "after_execute", _keep_metadata)
        return engine

    def execute(self, cursor: _Cursor, statement: str, parameters: Any) -> None:
        """Execute as one step, unless the statement is about the session, or nobody is exploring."""
        connection: Any = cursor.connection
        known = self._statements[statement] if statement in self._statements else self._know(statement)
        if known is None:
            connection.set_clock(self.clock.database)
            cursor.execute_now(statement, parameters)
            return
        if self.mutation is not None:
            changed = self.mutation(statement)
            self.mutated += changed != statement
            statement = changed
        actor = current()
        if actor is None:
            connection.set_clock(self.clock.database)
            cursor.execute_now(statement, parameters)
            return
        label, reads, writes = known
        kind = Kind.STATEMENT if connection.autocommit else Kind.PART
        option = self.stage.step(Step(kind, label, reads, writes))
        actor.backend = connection.pgconn.backend_pid
        if option in (Option.NOT_DONE, Option.DIES):
            connection._end(option)
        # Not earlier, because a clock may have jumped while the actor waited here.
        connection.set_clock(self.clock.database)
        cursor.execute_now(statement, parameters)
        if "attempts" in writes:
            actor.decided = actor.moved
        if kind is Kind.PART:
            actor.holds_locks = True
            self.touched[connection] = self.written(connection) | writes
        if option is not Option.DONE:
            connection._end(option)

    def _know(self, statement: str) -> tuple[str, frozenset[str], frozenset[str]] | None:
        """The statement's name, and the tables that it reads and writes; None: it is about the session, so it is
        not a step."""
        label = self._names.get(statement) or " ".join(statement.split())[:60]
        # Events are only appended, and a hash key is only noted, so their order makes no difference to others.
        known = self._tables - {"events", "hash_keys"}
        reads = frozenset(re.findall(r"\b(?:FROM|JOIN)\s+([a-z_]+)\b", statement)) & known
        writes = frozenset(re.findall(r"\b(?:UPDATE|INSERT INTO|DELETE FROM)\s+([a-z_]+)\b", statement)) & known
        if "FOR UPDATE" in statement:
            writes |= reads & {"states"}
        found = (label, reads, writes) if reads or writes else None
        self._statements[statement] = found
        return found


def _keep_metadata(
    _connection: Any, _statement: Any, _many: Any, _values: Any, _options: Any, result: Any
) -> None:
    """The columns of our statements never change; SQLAlchemy would examine them each time."""
    compiled = getattr(result.context, "compiled", None)
    if compiled is not None and result.returns_rows and compiled._cached_metadata is None:
        compiled._cached_metadata = result._metadata


def make_clock_movable(url: str) -> None:
    """Make the clock of a database with the product's tables movable."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_NOW)
        for table, column in connection.execute(_DEFAULTS).fetchall():
            connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT explore.now()")
        name = connection.info.dbname
        for setting in _SETTINGS:
            connection.execute(f'ALTER DATABASE "{name}" SET {setting}')


def _names() -> dict[str, str]:
    """Names of the store's statements, such as `claim` or `receipts.write`, by their text for the driver."""
    found: dict[str, str] = {}
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith("notifier.store."):
            continue
        room = module_name.rpartition(".")[2]
        for name, value in vars(module).items():
            if isinstance(value, TextClause):
                short = name.strip("_").lower().replace("_", " ")
                found.setdefault(for_driver(value), short if room == "statements" else f"{room}: {short}")
    return found
