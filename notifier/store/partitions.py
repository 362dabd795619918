"""Partitions of the large tables, made ahead: one a month, bounded by UUIDv7.

A default partition catches ids outside all months, so an insert never fails for want of one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from notifier.errors import ServiceUnavailable
from notifier.store.engine import transaction

#: Tables that are partitioned, each by a notification's id.
PARTITIONED = ("notifications", "attempts", "events")
#: Months made ahead of the current one, and the one before it for ids that waited in a queue.
MONTHS_AHEAD = 3
MONTHS_BEHIND = 1

# Any constant does: it keeps two Beats from making the same partition at once.
_LOCK = 0x6E6F7469
#: Dropping a partition stops everybody on its table while it waits for the lock: better another try.
_DROP_LOCK = "500ms"
_MONTH = re.compile(r"_(y(\d{4})m(\d{2}))$")


def first_id(moment: datetime) -> UUID:
    """The smallest UUIDv7-shaped value of that millisecond: a bound between ids made before and after it."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def month_after(moment: datetime, months: int) -> datetime:
    """The first instant, UTC, of the month `months` after the one of `moment` (negative: before)."""
    index = moment.year * 12 + moment.month - 1 + months
    return datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC)


def ensure_partitions(engine: Engine) -> list[str]:
    """Make the months from the last one to `MONTHS_AHEAD` after this one. Returns the names of the new ones.

    Safe to run at any time, twice at once too. The database's clock decides.
    """
    with transaction(engine) as connection:
        # A new partition locks the default one for a moment; behind a long transaction, better later than never
        # letting an insert through meanwhile.
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        now: datetime = connection.execute(text("SELECT now()")).scalar_one()
        existing = set(connection.execute(text(_EXISTING)).scalars())
        made = []
        for table in PARTITIONED:
            for offset in range(-MONTHS_BEHIND, MONTHS_AHEAD + 1):
                start = month_after(now.astimezone(UTC), offset)
                name = _name(table, start)
                if name not in existing:
                    _make(connection, table, name, start)
                    made.append(name)
    return made


def missing_partitions(engine: Engine, *, months_ahead: int = 1) -> list[str]:
    """Names of partitions that should exist, from this month to `months_ahead` after it, and do not."""
    with transaction(engine) as connection:
        now: datetime = connection.execute(text("SELECT now()")).scalar_one()
        existing = set(connection.execute(text(_EXISTING)).scalars())
    months = [month_after(now.astimezone(UTC), offset) for offset in range(months_ahead + 1)]
    wanted = [_name(table, month) for table in PARTITIONED for month in months]
    return [name for name in wanted if name not in existing]


@dataclass(frozen=True, slots=True)
class Month:
    """A month that has partitions."""

    #: As 2026-11.
    name: str
    #: The first id that is in it, and the first one after it.
    low: UUID
    high: UUID


def months(engine: Engine) -> list[Month]:
    """Those that have partitions, the oldest first."""
    with transaction(engine) as connection:
        existing = connection.execute(text(_EXISTING)).scalars().all()
    found = {match[1]: match for name in existing if (match := _MONTH.search(name))}
    starts = [datetime(int(match[2]), int(match[3]), 1, tzinfo=UTC) for _, match in sorted(found.items())]
    return [Month(f"{start:%Y-%m}", first_id(start), first_id(month_after(start, 1))) for start in starts]


def drop_month(engine: Engine, month: Month) -> bool:
    """Drop the partitions of a month. Returns whether they are gone; False: somebody holds a table just now.

    One after the other, each in a transaction of its own: nobody waits for more than one table, and for no longer
    than `_DROP_LOCK`. What ended in the middle is found again by the partitions that are left.
    """
    for table in PARTITIONED:
        name = f"{table}_y{month.name.replace('-', 'm')}"
        try:
            with transaction(engine) as connection:
                connection.execute(text(f"SET LOCAL lock_timeout = '{_DROP_LOCK}'"))
                connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
        except ServiceUnavailable as error:
            if getattr(getattr(error.__cause__, "orig", None), "sqlstate", None) != "55P03":
                raise
            return False
    return True


def _name(table: str, month: datetime) -> str:
    return f"{table}_y{month:%Y}m{month:%m}"


_EXISTING = """
SELECT child.relname FROM pg_inherits
JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
JOIN pg_class AS parent ON parent.oid = pg_inherits.inhparent
WHERE parent.relname IN ('notifications', 'attempts', 'events')
"""


def _make(connection: Connection, table: str, name: str, start: datetime) -> None:
    # Every part of this statement is made above from constants and a date: nothing to bind or to inject.
    low, high = first_id(start), first_id(month_after(start, 1))
    connection.execute(text(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{low}') TO ('{high}')"))
