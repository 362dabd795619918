"""The database's clock, read without asking it each time.

A process measures it against its own monotonic clock, which setting the time does not move: whenever it takes a
connection out of the pool and the last measurement is not of the last seconds. So a machine whose clock is months
ahead, or is stepped while it works, makes ids of the right time, and no batch costs a round trip more.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from notifier.domain import message

#: It is measured again after this: the database's own clock may be stepped, too. Seconds.
MEASURED_SECONDS = 5.0
_OPTION = "notifier_clock"


class DatabaseClock:
    """That of one engine's database, behind by at most the time of one answer. Thread-safe."""

    def __init__(self) -> None:
        #: Our monotonic clock and the database's, at the same moment.
        self._measured: tuple[float, float] | None = None
        self._is_another = False

    @property
    def is_due(self) -> bool:
        """Whether it is to be measured."""
        measured = self._measured
        return measured is None or self._is_another or time.monotonic() - measured[0] > MEASURED_SECONDS

    def expect_another(self) -> None:
        """A connection was made: perhaps to another server, after a failover."""
        self._is_another = True

    def measure(self, connection: Any) -> None:
        """Ask for it, by a connection of the driver that is in no transaction."""
        begins_transactions = not connection.autocommit
        connection.autocommit = True
        try:
            found = connection.execute(_TELL, prepare=False).fetchone()
            self._measured = (time.monotonic(), float(found[0]))
            self._is_another = False
        finally:
            if begins_transactions and not connection.closed:
                connection.autocommit = False

    def now(self) -> datetime:
        """Whoever has had a connection has measured it."""
        return datetime.fromtimestamp(self._seconds(), UTC)

    def new_id(self) -> UUID:
        """A UUIDv7 of now."""
        return message.new_id(self._seconds())

    def _seconds(self) -> float:
        assert self._measured is not None, "measured with every connection"
        then, found = self._measured
        return found + time.monotonic() - then


def clock_of(bind: Engine | Connection) -> DatabaseClock:
    """That of an engine of `make_engine`, or of one of its connections."""
    found: DatabaseClock = bind.get_execution_options()[_OPTION]
    return found


def set_clock(engine: Engine, clock: DatabaseClock) -> None:
    """From here on `clock_of` finds it."""
    engine.update_execution_options(**{_OPTION: clock})


_TELL = "SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)"
