"""The transactional outbox for producers that use SQLAlchemy: messages are rows of the producer's own
transactions.

    with Session(engine) as session, session.begin():
        session.add(order)
        client.send("order_shipped", to=order.email, context={...}, outbox=session)

The message is committed or rolled back together with the order, whether or not the broker is reachable. A relay
(`notifier relay`, or `Relay(SqlOutbox(engine), Wire(url)).run(stop)`) publishes it. The table belongs in the
producer's migrations: add `metadata` to them, or call `make_table` with your own metadata.

Importing this module loads SQLAlchemy; `import notifier` does not import it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    and_,
    create_engine,
    delete,
    insert,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, scoped_session

from notifier.client.relay import OutboxRow, Pair, Passed, Relay
from notifier.domain.errors import ConfigurationError, MissingPackage, ServiceUnavailable
from notifier.domain.statuses import Channel, Lane

__all__ = ["Relay", "SqlOutbox", "create_table", "make_engine", "make_table", "metadata", "table", "write"]

TABLE_NAME = "notifier_outbox"

# Databases on which a relay locks its rows. On others two relays may publish the same row, which the service
# accepts once.
_CAN_SKIP_LOCKED = ("postgresql", "mysql", "mariadb")


def make_table(metadata: MetaData, name: str = TABLE_NAME) -> Table:
    """Define the outbox table in `metadata`. `name` may begin with a schema and a dot."""
    schema, _, plain = name.rpartition(".")
    return Table(
        plain,
        metadata,
        #: The message's id, a UUIDv7, so ids are in order of time.
        Column("id", Uuid(), primary_key=True),
        Column("channel", String(16), nullable=False),
        Column("lane", String(16), nullable=False),
        #: The message as JSON of the contract, at most 1 MiB.
        Column("body", Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        #: How often the broker did not accept the message.
        Column("attempts", Integer, nullable=False, default=0, server_default="0"),
        #: The last error.
        Column("last_error", String(500), nullable=False, default="", server_default=""),
        schema=schema or None,
    )


#: For the producer's migrations: Alembic's `target_metadata` may be a list.
metadata = MetaData()
table = make_table(metadata)


@cache
def _table(name: str) -> Table:
    return table if name == TABLE_NAME else make_table(MetaData(), name)


def create_table(engine: Engine, *, name: str = TABLE_NAME) -> None:
    """Create the table if it is missing. For producers without migrations."""
    _table(name).create(engine, checkfirst=True)


def write(
    transaction: Session | scoped_session[Any] | Connection,
    rows: Iterable[tuple[UUID, Channel, Lane, bytes]],
    *,
    table_name: str = TABLE_NAME,
) -> None:
    """Insert messages (id, channel, lane, body) in the caller's transaction. `Client.send(outbox=…)` calls it.

    Raises:
        TypeError: given an engine or an asynchronous session, which are not transactions to write in.
    """
    if not isinstance(transaction, Session | scoped_session | Connection):
        raise TypeError(
            f"outbox= takes a Session or a Connection, not {type(transaction).__name__}; with an AsyncSession: "
            "await session.run_sync(lambda sync: client.send(…, outbox=sync))"
        )
    now = datetime.now(UTC)
    values = [
        {"id": id_, "channel": channel.value, "lane": lane.value, "body": body.decode(), "created_at": now}
        for id_, channel, lane, body in rows
    ]
    if values:
        transaction.execute(insert(_table(table_name)), values)


@dataclass(slots=True)
class SqlOutbox:
    """A relay's view of an outbox table."""

    engine: Engine
    table_name: str = TABLE_NAME
    _table: Table = field(init=False)

    def __post_init__(self) -> None:
        self._table = _table(self.table_name)

    def check(self) -> None:
        """Raises `ConfigurationError` if the table is missing, `ServiceUnavailable` if the database is
        unreachable."""
        try:
            is_there = inspect(self.engine).has_table(self._table.name, schema=self._table.schema)
        except (DBAPIError, PoolTimeout) as error:
            raise _unavailable(error) from error
        if not is_there:
            raise ConfigurationError(
                f"the database has no table {self.table_name}: add notifier.client.outbox.metadata to your "
                "migrations, or call notifier.client.outbox.create_table(engine)",
                setting="--table",
            )

    def pass_on(
        self, limit: int, pairs: Sequence[Pair], publish: Callable[[Sequence[OutboxRow]], Passed]
    ) -> Passed:
        with self._mapped(), self._connected() as connection:
            rows = self._take(connection, limit, pairs)
            if not rows:
                return Passed()
            if not self._can_lock:
                # On SQLite an open transaction would stop other writers.
                connection.commit()
            passed = publish(rows)
            self._note(connection, passed)
            connection.commit()
            return passed

    @property
    def _can_lock(self) -> bool:
        return self.engine.dialect.name in _CAN_SKIP_LOCKED

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            if self._can_lock:
                # MySQL's default isolation level would also lock the gap after the last row, and so block the
                # producer's inserts.
                connection = connection.execution_options(isolation_level="READ COMMITTED")
            yield connection

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn temporary errors into `ServiceUnavailable`, and report a missing table as such."""
        try:
            yield
        except (DBAPIError, PoolTimeout) as error:
            self.check()
            raise _unavailable(error) from error

    def _take(self, connection: Connection, limit: int, pairs: Sequence[Pair]) -> list[OutboxRow]:
        columns = self._table.c
        wanted = or_(*(and_(columns.channel == channel, columns.lane == lane) for channel, lane in pairs))
        query = (
            select(columns.id, columns.channel, columns.lane, columns.body)
            .where(wanted)
            .order_by(columns.id)
            .limit(limit)
        )
        if self._can_lock:
            query = query.with_for_update(skip_locked=True)
        return [
            OutboxRow(id_, Channel(channel), Lane(lane), body.encode())
            for id_, channel, lane, body in connection.execute(query)
        ]

    def _note(self, connection: Connection, passed: Passed) -> None:
        columns = self._table.c
        if passed.published:
            connection.execute(delete(self._table).where(columns.id.in_(passed.published)))
        if passed.failed:
            connection.execute(
                update(self._table)
                .where(columns.id.in_(passed.failed))
                .values(attempts=columns.attempts + 1, last_error=passed.error[:500])
            )


def _unavailable(error: SQLAlchemyError) -> ServiceUnavailable:
    # Only the kind of error: its text may hold the row, and with it a recipient.
    kind = type(getattr(error, "orig", None) or error).__name__
    return ServiceUnavailable(f"the database of the outbox cannot be used ({kind})")


def make_engine(url: str) -> Engine:
    """Make an engine for a relay, on any database that SQLAlchemy supports.

    Raises:
        ConfigurationError: the URL is invalid, or its driver is not installed. The text holds no part of the URL.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql" and parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        options: dict[str, int | None] = (
            {"connect_timeout": 5} if parsed.get_backend_name() in ("postgresql", "mysql") else {}
        )
        if parsed.drivername == "postgresql+psycopg":
            # Behind a pooler the next transaction may run in another session, which does not have our prepared
            # statements.
            options["prepare_threshold"] = None
        return create_engine(
            parsed, hide_parameters=True, pool_pre_ping=True, pool_recycle=1800, connect_args=options
        )
    except (ArgumentError, NoSuchModuleError):
        raise ConfigurationError(
            "the URL of the outbox's database is not an SQLAlchemy URL: write "
            "postgresql://user:password@host/name, mysql+pymysql://… or sqlite:////path/to/file",
            setting="--database-url",
        ) from None
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"the outbox's database needs its driver: install the package of the module {error.name}",
            setting="--database-url",
        ) from None
