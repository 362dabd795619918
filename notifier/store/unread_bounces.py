"""Returned mails that no parser could read: kept for people, sealed like all personal data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, TextClause, or_, select, text

from notifier.domain.errors import CannotOpen, NotFound
from notifier.store import binds
from notifier.store.clock import clock_of
from notifier.store.engine import transaction
from notifier.store.personal_data import PersonalData
from notifier.store.repository import Repository
from notifier.store.rows import columns_of, from_row, newest
from notifier.store.schema.feedback import UnreadBounce

#: A mail is cut to this length. Bytes.
KEPT_BYTES = 64 * 1024
#: Maximum mails kept for one notification, because anyone who has its return path could send any number.
MAX_KEPT = 10


@dataclass(frozen=True, slots=True)
class UnreadView:
    id: UUID
    received_at: datetime
    notification_id: UUID
    attempt: int
    #: Full length. Bytes.
    size: int
    #: The part that is kept. Empty in lists.
    content: bytes = b""
    #: Why the kept part cannot be shown, with the name of the key. "": it can.
    fault: str = ""


_VIEW = columns_of(UnreadView, UnreadBounce, without=["content", "fault"])


class UnreadBounceRepository(Repository):
    def __init__(self, engine: Engine, personal_data: PersonalData) -> None:
        super().__init__(engine)
        self._personal_data = personal_data

    def keep(self, notification_id: UUID, attempt: int, content: bytes) -> bool:
        """Keep the mail and write an event for its notification. Returns whether the mail is new.

        For a redacted notification, and beyond `MAX_KEPT`, nothing is kept; one event says so.
        """
        values = {
            "notification_id": notification_id,
            "attempt": attempt,
            "digest": hashlib.sha256(content).digest(),
            "size": len(content),
            "max_kept": MAX_KEPT,
        }
        with transaction(self._engine) as connection:
            id_ = clock_of(connection).new_id()
            values |= {"id": id_, **self._personal_data.put_away_bounce(id_, content[:KEPT_BYTES])}
            # With the lock, the same mail counts once even if it comes twice at the same time.
            connection.execute(_LOCK, {"id": notification_id})
            return connection.execute(_KEEP, values).first() is not None

    def note_reply(self, notification_id: UUID, attempt: int) -> bool:
        """Write an event that a program answered the mail. Returns whether the event is new."""
        with transaction(self._engine) as connection:
            connection.execute(_LOCK, {"id": notification_id})
            return connection.execute(_REPLY, {"id": notification_id, "attempt": attempt}).rowcount > 0

    def page(self, *, limit: int, before: UUID | None = None) -> list[UnreadView]:
        """Newest first, without contents. `before` is the last id of the previous page."""
        return self._records(UnreadView, newest(select(*_VIEW), UnreadBounce.id, limit=limit, before=before))

    def find(self, wanted: UUID) -> list[UnreadView]:
        """The mail with this id, or the mails of the notification with this id, oldest first.

        Raises:
            NotFound: there is none.
        """
        query = select(*_VIEW, UnreadBounce.content, UnreadBounce.sealed).order_by(UnreadBounce.id)
        query = query.where(or_(UnreadBounce.id == wanted, UnreadBounce.notification_id == wanted))
        rows = self._rows(query)
        if not rows:
            raise NotFound(f"no mail that came back unread has the id {wanted}, or is of a notification with it")
        return [self._opened(row) for row in rows]

    def _opened(self, row: Any) -> UnreadView:
        view = from_row(UnreadView, row)
        try:
            return replace(view, content=self._personal_data.open_bounce(row.id, row.content, row.sealed))
        except CannotOpen as error:
            return replace(view, fault=str(error))


_IDS = binds.uuid("id")

_LOCK: TextClause = text("SELECT id FROM states WHERE id = :id FOR UPDATE").bindparams(_IDS)

# A mail that comes back later must not bring back what was redacted.
_KEEP: TextClause = text("""
WITH known AS (
  SELECT count(*) AS count, bool_or(digest = :digest) AS is_known FROM unread_bounces
  WHERE notification_id = :notification_id
), about AS (
  SELECT m.id, m.recipient IS NULL AND m.sealed IS NULL AS is_redacted, coalesce(k.is_known, false) AS is_known,
    k.count < :max_kept AS has_room
  FROM messages AS m CROSS JOIN known AS k WHERE m.id = :notification_id
), kept AS (
  INSERT INTO unread_bounces (id, notification_id, attempt, digest, size, content, sealed)
  SELECT :id, about.id, :attempt, :digest, :size, :content, :sealed FROM about
  WHERE NOT is_redacted AND NOT is_known AND has_room
  RETURNING id
), noted AS (
  INSERT INTO events (notification_id, kind, attempt, detail)
  SELECT about.id, 'came_back_unread', :attempt, CASE WHEN kept.id IS NOT NULL
    THEN 'notifier bounces unread ' || kept.id WHEN is_redacted THEN 'its recipient was redacted: it was not kept'
    ELSE 'more came back than is kept' END
  FROM about LEFT JOIN kept ON true
  WHERE kept.id IS NOT NULL OR (is_redacted AND NOT EXISTS (
    SELECT FROM events AS e WHERE e.notification_id = about.id AND e.kind = 'came_back_unread'))
  OR (NOT is_redacted AND NOT is_known AND NOT has_room AND NOT EXISTS (
    SELECT FROM events AS e WHERE e.notification_id = about.id AND e.kind = 'came_back_unread'
      AND e.detail = 'more came back than is kept'))
  RETURNING id
)
SELECT id FROM noted
""").bindparams(_IDS, binds.uuid("notification_id"))

_REPLY: TextClause = text("""
INSERT INTO events (notification_id, kind, attempt)
SELECT n.id, 'auto_reply', :attempt FROM states AS n WHERE n.id = :id AND NOT EXISTS (
  SELECT FROM events AS e WHERE e.notification_id = n.id AND e.kind = 'auto_reply')
""").bindparams(_IDS)
