"""The database's clock, without asking the database each time.

A process compares it with its own monotonic clock, which nobody can set. It does so when it takes a connection out
of the pool and the last comparison is some seconds old. So a machine whose clock is wrong, or is stepped, still
makes ids with the right time, and no batch costs another round trip.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from notifier.domain import message

#: The clock is compared again after this, because the database's clock may be stepped, too. Seconds.
MEASURED_SECONDS = 5.0
_OPTION = "notifier_clock"


class DatabaseClock:
    """The clock of one engine's database. Slow by at most the time of one answer. Thread-safe."""

    def __init__(self) -> None:
        #: Our monotonic clock and the database's, at the same moment.
        self._measured: tuple[float, float] | None = None
        self._is_another = False

    @property
    def is_due(self) -> bool:
        """Whether it must be measured."""
        measured = self._measured
        return measured is None or self._is_another or time.monotonic() - measured[0] > MEASURED_SECONDS

    def expect_another(self) -> None:
        """A new connection may lead to another server, after a failover."""
        self._is_another = True

    def measure(self, connection: Any) -> None:
        """Measure the clock on a connection of the driver in autocommit."""
        found = connection.execute(_TELL, prepare=False).fetchone()
        self._measured = (time.monotonic(), float(found[0]))
        self._is_another = False

    def now(self) -> datetime:
        """The database's time. Take a connection out of the pool before, because that measures the clock."""
        return datetime.fromtimestamp(self._seconds(), UTC)

    def new_id(self) -> UUID:
        """A UUIDv7 of the database's present time."""
        return message.new_id(self._seconds())

    def _seconds(self) -> float:
        assert self._measured is not None, "measured with every connection"
        then, found = self._measured
        return found + time.monotonic() - then


def clock_of(bind: Engine | Connection) -> DatabaseClock:
    """The clock of an engine that `make_engine` made, or of one of its connections."""
    found: DatabaseClock = bind.get_execution_options()[_OPTION]
    return found


def set_clock(engine: Engine, clock: DatabaseClock) -> None:
    """Attach the clock to the engine, for `clock_of`."""
    engine.update_execution_options(**{_OPTION: clock})


_TELL = "SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)"
