"""A month without partitions, and the upkeep that creates them under load."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from chaos.world import World
from notifier.store.engine import make_engine
from notifier.store.schema.partitions import PARTITIONED, ensure_partitions

#: Statements of the load sometimes hold the table; after this, try again.
_LOCK = "SET LOCAL lock_timeout = '500ms'"
_TRIES = 60


def month_without_partition(times: int) -> Callable[[World], None]:
    """This month's rows are in the default partitions, more arrive, and then the month is created."""

    def fault(world: World) -> None:
        engine = make_engine(world.postgres.url)
        for _ in range(times):
            _take_away(world)
            world.strike()
            # The load goes into the default partitions.
            world.pause(3)
            try:
                made = ensure_partitions(engine)
                world.notes += [f"upkeep failed: {month}" for month in getattr(made, "failed", ())]
            except Exception as error:
                world.notes.append(f"upkeep failed: {type(error).__name__}")
            world.pause(1)
        engine.dispose()

    return fault


def _take_away(world: World) -> None:
    """Move the rows to the default partition in one transaction, bypassing the parent table, whose triggers would
    make their callbacks again."""
    for _ in range(_TRIES):
        try:
            with psycopg.connect(world.postgres.url) as connection:
                connection.execute(_LOCK)
                connection.execute(f"LOCK TABLE {', '.join(PARTITIONED)} IN ACCESS EXCLUSIVE MODE")
                for table in PARTITIONED:
                    _move(connection, table)
            return
        except psycopg.errors.LockNotAvailable:
            world.pause(0.2)
    world.notes.append("the tables were never free, so no month was taken away")


def _move(connection: psycopg.Connection, table: str) -> None:
    query = """SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
      WHERE i.inhparent = %s::regclass AND c.relname <> %s"""
    for (partition,) in connection.execute(query, [table, f"{table}_default"]).fetchall():
        connection.execute(f"ALTER TABLE {table} DETACH PARTITION {partition}")
        columns = ", ".join(
            name
            for (name,) in connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
                " AND NOT attisdropped AND attgenerated = ''",
                [partition],
            ).fetchall()
        )
        connection.execute(f"INSERT INTO {table}_default ({columns}) SELECT {columns} FROM {partition}")
        connection.execute(f"DROP TABLE {partition}")


def check(world: World) -> list[str]:
    """Upkeep has done its work, and the default partitions are empty."""
    wrong = []
    with psycopg.connect(world.postgres.url, connect_timeout=5) as connection:
        for table in PARTITIONED:
            row = connection.execute(f"SELECT count(*) FROM {table}_default").fetchone()
            if row != (0,):
                wrong.append(f"{row[0] if row else 0} rows of {table} are left in the default partition")
    return wrong
