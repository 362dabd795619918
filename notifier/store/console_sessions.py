"""The sessions of people who are signed in to the console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import TextClause, insert, text

from notifier.store.repository import Repository
from notifier.store.rows import from_row
from notifier.store.schema.operations import ConsoleSession

#: A session ends when nobody has used it for this long …
IDLE_HOURS = 2
#: … and in any case after this.
LONGEST_HOURS = 12


@dataclass(frozen=True, slots=True)
class StoredSession:
    key_id: str | None
    person: str
    scopes: list[str]
    #: Its last use is old enough to be written again.
    is_stale: bool


class ConsoleSessionRepository(Repository):
    def add(self, values: dict[str, Any]) -> None:
        """Add a session. `values` are columns of `console_sessions`. Deletes sessions that have ended."""
        self._execute(_FORGET_OLD, _LIMITS)
        self._execute(insert(ConsoleSession).values(**values))

    def find(self, token_hash: bytes) -> StoredSession | None:
        """The session. None: there is none, or it has ended."""
        rows = self._rows(_FIND, {"token_hash": token_hash, **_LIMITS}, is_one_statement=True)
        return from_row(StoredSession, rows[0]) if rows else None

    def touch(self, token_hash: bytes) -> None:
        """Record that the session was used now."""
        self._execute(_TOUCH, {"token_hash": token_hash})

    def end(self, token_hash: bytes) -> None:
        self._execute(_END, {"token_hash": token_hash})


_LIMITS = {"idle": IDLE_HOURS, "longest": LONGEST_HOURS}

_FIND: TextClause = text("""
SELECT key_id, person, scopes, seen_at < now() - interval '1 minute' AS is_stale FROM console_sessions
WHERE token_hash = :token_hash AND seen_at > now() - make_interval(hours => :idle)
  AND started_at > now() - make_interval(hours => :longest)
""")

_TOUCH: TextClause = text("UPDATE console_sessions SET seen_at = now() WHERE token_hash = :token_hash")

_END: TextClause = text("DELETE FROM console_sessions WHERE token_hash = :token_hash")

_FORGET_OLD: TextClause = text("""
DELETE FROM console_sessions WHERE seen_at < now() - make_interval(hours => :idle)
  OR started_at < now() - make_interval(hours => :longest)
""")
