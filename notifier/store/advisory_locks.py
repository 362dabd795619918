"""Advisory locks of PostgreSQL, for work that only one program at a time may do.

Each lock is held until its transaction ends. The numbers must stay as they are: during an upgrade, programs of two
versions run side by side and must use the same lock.
"""

from __future__ import annotations

from enum import IntEnum, unique

from sqlalchemy import Connection, TextClause, text


@unique
class AdvisoryLock(IntEnum):
    SCHEMA_UPGRADE = 0x6E6F7468  #: find the next revision of the schema, and apply it
    PARTITIONS = 0x6E6F7469  #: make the partitions of a month, and move rows into them
    DAILY_STATISTICS = 0x6E6F7473  #: count the notifications of a day
    HELD_SUPPRESSIONS = 0x6E6F7474  #: decide about suppressions that a mass alarm held


def take_lock(connection: Connection, lock: AdvisoryLock) -> None:
    """Wait until nobody else has the lock, and take it until the transaction ends."""
    connection.execute(_TAKE, {"lock": lock})


def try_lock(connection: Connection, lock: AdvisoryLock) -> bool:
    """Take the lock if nobody else has it. Returns whether it was taken."""
    return bool(connection.execute(_TRY, {"lock": lock}).scalar_one())


def lock_uploads(connection: Connection, producer: str) -> None:
    """Wait until no other upload of this producer is under way; hold off others until the transaction ends."""
    connection.execute(_TAKE_UPLOADS, {"producer": producer})


_TAKE: TextClause = text("SELECT pg_advisory_xact_lock(:lock)")

_TRY: TextClause = text("SELECT pg_try_advisory_xact_lock(:lock)")

# Locks of two numbers never collide with locks of one number.
_TAKE_UPLOADS: TextClause = text("SELECT pg_advisory_xact_lock(hashtext('attachments'), hashtext(:producer))")
