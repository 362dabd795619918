"""Which hash keys notifications were accepted under: under another one they are not found by their address.

Crash points: a key is noted before the first notification that is accepted under it, so none can be there without
its key. One that was noted and never used is harmless.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import TextClause, text

from notifier.domain.errors import ServiceUnavailable
from notifier.domain.message import time_of_id
from notifier.store.database_errors import NO_RIGHT, sqlstate_of
from notifier.store.repository import Repository

#: A process that accepts notes its key this often.
NOTED_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class HashKeyUse:
    """A key under which notifications of the record may have been accepted."""

    fingerprint: str
    #: Later by up to `NOTED_EVERY`.
    last_used_at: datetime


class HashKeyRepository(Repository):
    _due = 0.0

    def note(self, fingerprint: str) -> None:
        """Before notifications are accepted under it. Writes once an hour."""
        now = time.monotonic()
        if now < self._due:
            return
        try:
            self._execute(_NOTE, {"fingerprint": fingerprint}, is_one_statement=True)
        except ServiceUnavailable as error:
            # Rights that were granted before this table came: no reason to accept nothing.
            if sqlstate_of(error) != NO_RIGHT:
                raise
        self._due = now + NOTED_EVERY.total_seconds()

    def forget_others(self, fingerprint: str) -> None:
        """After every hash was made again under this one. What is redacted keeps its hash, so its key stays."""
        self._execute(_FORGET_OTHERS, {"fingerprint": fingerprint}, is_one_statement=True)

    def uses(self) -> list[HashKeyUse]:
        """Those under which there may still be notifications, the oldest first."""
        oldest = self._rows(_OLDEST, is_one_statement=True)
        if not oldest:
            return []
        first: UUID = oldest[0].id
        return self._records(HashKeyUse, _USES, {"since": time_of_id(first) - NOTED_EVERY})


_NOTE: TextClause = text("""
INSERT INTO hash_keys (fingerprint) VALUES (:fingerprint)
ON CONFLICT (fingerprint) DO UPDATE SET last_used_at = now()
""")

# A look at every notification, after all of them were written.
_FORGET_OTHERS: TextClause = text("""
DELETE FROM hash_keys WHERE fingerprint <> :fingerprint
AND NOT EXISTS (SELECT FROM messages WHERE recipient IS NULL AND sealed IS NULL)
""")

_OLDEST: TextClause = text("SELECT id FROM messages ORDER BY id LIMIT 1")

_USES: TextClause = text("""
SELECT fingerprint, last_used_at FROM hash_keys WHERE last_used_at >= :since ORDER BY first_used_at
""")
