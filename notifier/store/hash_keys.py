"""The hash keys under which notifications were accepted. Under another key they are not found by their address.

Crash points: a key is noted before the first notification is accepted under it, so no notification is there
without its key. A key that was noted and never used is harmless.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from notifier.domain.errors import ServiceUnavailable
from notifier.domain.message import time_of_id
from notifier.store.database_errors import NO_RIGHT, sqlstate_of
from notifier.store.repository import Repository

#: A process that accepts notifications notes its key this often.
NOTED_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class HashKeyUse:
    """A key under which notifications of the record may have been accepted."""

    fingerprint: str
    #: The last use, or up to `NOTED_EVERY` before it.
    last_used_at: datetime


class HashKeyRepository(Repository):
    _due = 0.0

    def note(self, fingerprint: str) -> None:
        """Note the key, before notifications are accepted under it. Writes once an hour."""
        now = time.monotonic()
        if now < self._due:
            return
        try:
            self._execute(_NOTE, {"fingerprint": fingerprint}, is_one_statement=True)
        except ServiceUnavailable as error:
            # Rights may have been granted before this table existed: no reason to accept nothing.
            if sqlstate_of(error) != NO_RIGHT:
                raise
        self._due = now + NOTED_EVERY.total_seconds()

    def forget_others(self, fingerprint: str) -> None:
        """Forget all other keys, after every hash was made anew under this one. Redacted notifications keep their
        hashes, so as long as there are any, the keys stay."""
        self._execute(_FORGET_OTHERS, {"fingerprint": fingerprint}, is_one_statement=True)

    def uses(self) -> list[HashKeyUse]:
        """The keys under which there may still be notifications, oldest first."""
        oldest = self._rows(_OLDEST, is_one_statement=True)
        if not oldest:
            return []
        first: UUID = oldest[0].id
        return self._records(HashKeyUse, _USES, {"since": time_of_id(first) - NOTED_EVERY})


def other_key_at(connection: Connection, fingerprint: str, at: datetime) -> str | None:
    """The newest key other than this one that was in use at this time. None: there was none."""
    values = {"fingerprint": fingerprint, "at": at, "noted_every": NOTED_EVERY}
    found: str | None = connection.execute(_OTHER_AT, values).scalar()
    return found


_NOTE: TextClause = text("""
INSERT INTO hash_keys (fingerprint) VALUES (:fingerprint)
ON CONFLICT (fingerprint) DO UPDATE SET last_used_at = now()
""")

# The condition looks at every notification, after all hashes were written.
_FORGET_OTHERS: TextClause = text("""
DELETE FROM hash_keys WHERE fingerprint <> :fingerprint
AND NOT EXISTS (SELECT FROM messages WHERE recipient IS NULL AND sealed IS NULL)
""")

_OLDEST: TextClause = text("SELECT id FROM messages ORDER BY id LIMIT 1")

_USES: TextClause = text("""
SELECT fingerprint, last_used_at FROM hash_keys WHERE last_used_at >= :since ORDER BY first_used_at
""")

_OTHER_AT: TextClause = text("""
SELECT fingerprint FROM hash_keys WHERE fingerprint <> :fingerprint
  AND first_used_at <= :at AND last_used_at >= CAST(:at AS timestamptz) - CAST(:noted_every AS interval)
ORDER BY first_used_at DESC LIMIT 1
""")
