"""The partitions of the large tables: one for each month, bounded by UUIDv7, and made ahead of time.

A default partition catches ids outside all months, so an insert never fails for lack of a partition. Postgres
makes no partition for a month while the default partition holds rows of that month, so these rows are moved into
it.

Crash points: a month is made in one transaction, so its rows are always either in the default partition or in the
month. A statement that waits for the locks of a move is planned afterwards, and finds the rows in the month.

A month is also dropped in one transaction, so it is there in all tables or in none. Accepting a message and
retrying one need a lock on `messages` until they commit. The drop waits for the transactions that hold it, and
then looks for states of the month: one that came before the drop keeps the month. A message that is accepted after
it finds no month, and goes to the default partitions with all its rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from notifier.domain.errors import ServiceUnavailable
from notifier.domain.message import time_of_id
from notifier.store import binds
from notifier.store.advisory_locks import AdvisoryLock, take_lock
from notifier.store.engine import allow_seconds, transaction
from notifier.store.schema.table_locks import LOCK_SECONDS, LOCK_TRIES, is_in_the_way, patiently

#: The partitioned tables, each by a notification's id.
PARTITIONED = ("messages", "attempts", "events")
#: Months made after the current one, and the month before it, for ids that waited in a queue.
MONTHS_AHEAD = 3
MONTHS_BEHIND = 1
#: Missing months up to this far back are also made, if the default partition holds rows of them. Rows further back
#: or ahead stay in the default partition, where they are found and do no harm.
MONTHS_MENDED = 24

#: No id of ours is larger.
LAST_ID = UUID(int=2**128 - 1)

#: Moving rows, and waiting for another run, take a few minutes at most.
_MAKING_SECONDS = 600.0
_MONTH = re.compile(r"_(y(\d{4})m(\d{2}))$")


def first_id(moment: datetime) -> UUID:
    """The smallest UUIDv7-shaped value of that millisecond: a bound between ids made before and after it."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def month_after(moment: datetime, months: int) -> datetime:
    """The first instant, in UTC, of the month that is `months` after the month of `moment` (negative: before)."""
    index = moment.year * 12 + moment.month - 1 + months
    return datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Month:
    #: For example 2026-11.
    name: str
    #: The first id in it, and the first id after it.
    low: UUID
    high: UUID

    @classmethod
    def of(cls, moment: datetime, after: int = 0) -> Month:
        """The month of that moment, or the one `after` months later."""
        start = month_after(moment, after)
        return cls(f"{start:%Y-%m}", first_id(start), first_id(month_after(start, 1)))

    def partition(self, table: str) -> str:
        return f"{table}_y{self.name.replace('-', 'm')}"


@dataclass
class MadeMonths:
    #: Names of the new partitions.
    names: list[str] = field(default_factory=list)
    #: Number of rows moved into them from the default partitions.
    moved: int = 0
    #: Months that could not be made, and why.
    failed: dict[str, str] = field(default_factory=dict)

    def raise_failures(self) -> None:
        """Raise `ServiceUnavailable` if a month could not be made. The text says which month, and why."""
        if self.failed:
            told = "; ".join(f"{month}: {why}" for month, why in self.failed.items())
            raise ServiceUnavailable(f"partitions could not be made, of {told}")


@dataclass(frozen=True, slots=True)
class MissingMonth:
    month: Month
    #: Names of the partitions that are missing.
    names: tuple[str, ...]
    #: Number of rows in the default partitions that belong there.
    rows: int


@dataclass(frozen=True, slots=True)
class Stray:
    """Rows in a default partition whose ids lie before all months, or after them."""

    table: str
    rows: int
    is_ahead: bool
    #: The times in the first and the last of these ids.
    first_at: datetime
    last_at: datetime


def ensure_partitions(engine: Engine, *, tries: int = LOCK_TRIES) -> MadeMonths:
    """Make the months from the last one to `MONTHS_AHEAD` after the current one, and missing months that have
    rows. The rows are moved into them.

    Safe to run at any time, also twice at the same time. The database's clock counts. Each month is a transaction
    of its own; if it fails, the others are still made. Meanwhile everybody waits: for a few milliseconds, or for
    seconds if there are a hundred thousand rows to move.

    Raises:
        ServiceUnavailable: the database cannot be used now.
    """
    done = MadeMonths()
    for month in _wanted(engine):
        try:
            # A transaction that holds the tables also delays the other months, so waiting for it once is enough.
            names, moved = patiently(partial(_make, engine, month), 1 if done.failed else tries)
        except (ServiceUnavailable, SQLAlchemyError) as error:
            done.failed[month.name] = _why(error)
        else:
            done.names += names
            done.moved += moved
    return done


def missing_months(engine: Engine) -> list[MissingMonth]:
    """The months that `ensure_partitions` would make, in its order."""
    found = []
    for month in _wanted(engine):
        with transaction(engine) as connection:
            missing = _missing_tables(connection, month)
            rows = sum(_ask(connection, table, (month.low, month.high), _COUNT) for table in missing)
        if missing:
            found.append(MissingMonth(month, tuple(map(month.partition, missing)), rows))
    return found


def missing_partitions(engine: Engine) -> list[str]:
    """Names of missing partitions of this month and the next one."""
    now, existing = _now_and_existing(engine)
    wanted = [Month.of(now, ahead).partition(table) for table in PARTITIONED for ahead in (0, 1)]
    return [name for name in wanted if name not in existing]


def made_until(engine: Engine) -> str | None:
    """The last month up to which all partitions exist. None: those of this month do not."""
    now, made = _now_and_made(engine)
    return Month.of(now, made - 1).name if made else None


def months_made(engine: Engine) -> int:
    """Number of months in a row, from this one on, that have all their partitions."""
    return _now_and_made(engine)[1]


def strays(engine: Engine) -> list[Stray]:
    """The rows that stay in the default partitions, because their months are too far back or ahead."""
    found = []
    with transaction(engine) as connection:
        now = _now(connection)
        spans = (
            (False, UUID(int=0), Month.of(now, -MONTHS_MENDED).low),
            (True, Month.of(now, MONTHS_AHEAD).high, LAST_ID),
        )
        for table in PARTITIONED:
            for is_ahead, low, high in spans:
                gaps = list(_gaps(connection, table, low, high))
                ends = [_ask(connection, table, gap, end) for gap in gaps for end in (_FIRST, _LAST)]
                ids = [id_ for id_ in ends if id_ is not None]
                if ids:
                    rows = sum(_ask(connection, table, gap, _COUNT) for gap in gaps)
                    found.append(Stray(table, rows, is_ahead, time_of_id(min(ids)), time_of_id(max(ids))))
    return found


def months(engine: Engine) -> list[Month]:
    """All months that have partitions, oldest first."""
    return _months_of(_now_and_existing(engine)[1])


def drop_month(engine: Engine, month: Month) -> bool:
    """Drop a month whose states were deleted. Returns whether its partitions are gone. False: a table is in use,
    or a state of the month is left, and everything stays.

    Everybody waits meanwhile, for no lock longer than `LOCK_SECONDS`.
    """
    try:
        with transaction(engine) as connection:
            # Asked first without the locks, which need not be held while this passes over rows that were just
            # deleted.
            if _has_states(connection, month):
                return False
            _wait_briefly(connection)
            connection.execute(text(f"LOCK TABLE {_ONLY_PARENTS} IN ACCESS EXCLUSIVE MODE"))
            if _has_states(connection, month):
                return False
            names = ", ".join(map(month.partition, PARTITIONED))
            connection.execute(text(f"DROP TABLE IF EXISTS {names}"))
    except ServiceUnavailable as error:
        if not is_in_the_way(error):
            raise
        return False
    return True


def _wanted(engine: Engine) -> list[Month]:
    """The months that should exist, most urgent first."""
    with transaction(engine) as connection:
        now = _now(connection)
        ahead = [Month.of(now, after) for after in range(MONTHS_AHEAD + 1)]
        behind = [Month.of(now, -ago) for ago in range(1, MONTHS_BEHIND + 1)]
        forgotten = list(_forgotten(connection, now))
    return list({month.name: month for month in (*ahead, *behind, *forgotten)}.values())


def _forgotten(connection: Connection, now: datetime) -> Iterator[Month]:
    """Past months that have rows in the default partitions."""
    for table in PARTITIONED:
        for low, high in _gaps(connection, table, Month.of(now, -MONTHS_MENDED).low, Month.of(now).low):
            while (found := _ask(connection, table, (low, high), _FIRST)) is not None:
                month = Month.of(time_of_id(found))
                yield month
                low = month.high


def _gaps(connection: Connection, table: str, low: UUID, high: UUID) -> Iterator[tuple[UUID, UUID]]:
    """The ranges of ids that are in no month of the table, so that their rows are in its default partition.

    A query for them needs only the right to read the table, and reads no other partition.
    """
    for month in _months_of(name for name in _existing(connection) if name.startswith(f"{table}_")):
        if month.low > low:
            yield low, min(month.low, high)
        low = max(low, month.high)
        if low >= high:
            return
    yield low, high


def _months_of(names: Iterable[str]) -> list[Month]:
    found = {match[1]: match for name in names if (match := _MONTH.search(name))}
    return [Month.of(datetime(int(match[2]), int(match[3]), 1, tzinfo=UTC)) for _, match in sorted(found.items())]


def _make(engine: Engine, month: Month) -> tuple[list[str], int]:
    """Make the missing partitions of a month, and move its rows into them. Returns their names and the number of
    rows."""
    with transaction(engine) as connection:
        allow_seconds(connection, _MAKING_SECONDS)
        # Otherwise two Beats at the same time would make the same partition.
        take_lock(connection, AdvisoryLock.PARTITIONS)
        tables = _missing_tables(connection, month)
        if not tables:
            return [], 0
        _wait_briefly(connection)
        # The tables themselves, though attaching needs less. A statement that waits for a table reads its list of
        # partitions afterwards; one that waits only for the default partition has read it, and would miss rows.
        defaults = ", ".join(map(_default, PARTITIONED))
        connection.execute(text(f"LOCK TABLE {_ONLY_PARENTS}, {defaults} IN ACCESS EXCLUSIVE MODE"))
        moved = sum(_make_one(connection, table, month) for table in tables)
        return [month.partition(table) for table in tables], moved


def _make_one(connection: Connection, table: str, month: Month) -> int:
    """Make one partition. Not by `CREATE TABLE … PARTITION OF`, which fails while the default partition holds rows
    of the month. Attaching gives the table its indexes and keys.
    """
    # These statements consist of constants, a date and names from the catalog: there is nothing to bind.
    name, key = month.partition(table), _key(table)
    columns = ", ".join(connection.execute(text(_COLUMNS), {"table": table}).scalars())
    inside = f"{key} >= '{month.low}' AND {key} < '{month.high}'"
    copied = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMPRESSION"
    connection.execute(text(f"CREATE TABLE {name} (LIKE {table} {copied})"))
    moved = connection.execute(
        text(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM {_default(table)} WHERE {inside}")
    ).rowcount
    if moved:
        connection.execute(text(f"DELETE FROM {_default(table)} WHERE {inside}"))
    bounds = f"FOR VALUES FROM ('{month.low}') TO ('{month.high}')"
    connection.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {name} {bounds}"))
    return moved


def _wait_briefly(connection: Connection) -> None:
    """Limit the wait for locks: while we wait for one, everybody waits, so trying again is better."""
    connection.execute(text(f"SET LOCAL lock_timeout = {round(LOCK_SECONDS * 1000)}"))


def _why(error: ServiceUnavailable | SQLAlchemyError) -> str:
    """The first line of the database's error. The other lines quote rows."""
    lines = str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__]
    return lines[0]


def _now(connection: Connection) -> datetime:
    now: datetime = connection.execute(text("SELECT now()")).scalar_one()
    return now.astimezone(UTC)


def _existing(connection: Connection) -> set[str]:
    return set(connection.execute(text(_EXISTING)).scalars())


def _now_and_existing(engine: Engine) -> tuple[datetime, set[str]]:
    with transaction(engine) as connection:
        return _now(connection), _existing(connection)


def _now_and_made(engine: Engine) -> tuple[datetime, int]:
    now, existing = _now_and_existing(engine)
    made = 0
    while existing.issuperset(map(Month.of(now, made).partition, PARTITIONED)):
        made += 1
    return now, made


def _missing_tables(connection: Connection, month: Month) -> Sequence[str]:
    existing = _existing(connection)
    return [table for table in PARTITIONED if month.partition(table) not in existing]


def _has_states(connection: Connection, month: Month) -> bool:
    """Whether a notification of the month has a state."""
    return bool(connection.execute(_HAS_STATES, {"low": month.low, "high": month.high}).scalar_one())


def _default(table: str) -> str:
    return f"{table}_default"


def _key(table: str) -> str:
    """The column that says which month a row belongs to."""
    return "id" if table == "messages" else "notification_id"


#: What to select, and in which order.
_FIRST, _LAST, _COUNT = ("{key}", "ORDER BY 1 LIMIT 1"), ("{key}", "ORDER BY 1 DESC LIMIT 1"), ("count(*)", "")


def _ask(connection: Connection, table: str, span: tuple[UUID, UUID], what: tuple[str, str]) -> Any:
    """Select from the rows with ids from the first of the span up to, but not including, the second."""
    key, (low, high) = _key(table), span
    query = f"SELECT {what[0].format(key=key)} FROM {table} WHERE {key} >= :low AND {key} < :high {what[1]}"
    return connection.execute(text(query).bindparams(*binds.BOUNDS), {"low": low, "high": high}).scalar()


#: For LOCK TABLE: the tables themselves, without their partitions.
_ONLY_PARENTS = ", ".join(f"ONLY {table}" for table in PARTITIONED)

_HAS_STATES = text("SELECT EXISTS (SELECT FROM states WHERE id >= :low AND id < :high)").bindparams(*binds.BOUNDS)

_EXISTING = """
SELECT child.relname FROM pg_inherits
JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
JOIN pg_class AS parent ON parent.oid = pg_inherits.inhparent
WHERE parent.relname IN ('messages', 'attempts', 'events')
"""

_COLUMNS = """
SELECT quote_ident(attname) FROM pg_attribute
WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""
