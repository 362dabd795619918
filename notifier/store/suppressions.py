"""Suppressions: recipients who must not be sent to. Rows are never deleted, so the past stays explained.

A recipient has at most one suppression of each scope and reason at a time. The workers' look-up is part of
`claim_sql.START_ATTEMPTS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    LargeBinary,
    TextClause,
    bindparam,
    case,
    func,
    literal,
    select,
    text,
    update,
)

from notifier.domain.statuses import Channel, SuppressionReason
from notifier.store.engine import transaction
from notifier.store.mass_alarm import FROM_ROWS, ROWS, HardBounceWatch, rows_of
from notifier.store.records import NewSuppression
from notifier.store.repository import Repository
from notifier.store.rows import columns_of, matching, newest, within
from notifier.store.sanitize import storable
from notifier.store.schema.notifications import Suppression

#: Rows on one page of an export.
EXPORT_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Noted:
    """An event for the notification whose recipient caused the change."""

    notification_id: UUID
    text: str


@dataclass(frozen=True, slots=True)
class SuppressionView:
    id: UUID
    #: Hexadecimal.
    address_hash: str
    hash_key: str
    channel: str
    scope: str
    reason: str
    source: str
    detail: str | None
    notification_id: UUID | None
    created_at: datetime
    expires_at: datetime | None
    lifted_at: datetime | None
    lifted_by: str | None
    lifted_detail: str | None
    #: Provider and sender identity of the message that caused it.
    provider: str | None
    sender: str | None
    #: "active", "expired" or "lifted", by the database's clock.
    state: str


@dataclass(frozen=True, slots=True)
class SuppressionFilter:
    """All conditions must hold. None: no condition."""

    channel: Channel | None = None
    scope: str | None = None
    reason: SuppressionReason | None = None
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    #: Include suppressions that have ended.
    with_ended: bool = False
    #: Provider and sender identity of the message that caused them.
    provider: str | None = None
    sender: str | None = None


_ENDED = Suppression.lifted_at.is_not(None)
_EXPIRED = Suppression.expires_at <= func.now()
_STATE = case((_ENDED, literal("lifted")), (_EXPIRED, literal("expired")), else_=literal("active"))
_VIEW = columns_of(
    SuppressionView, Suppression, address_hash=func.encode(Suppression.address_hash, "hex"), state=_STATE
)


class SuppressionRepository(Repository):
    def __init__(self, engine: Engine, watch: HardBounceWatch | None = None) -> None:
        super().__init__(engine)
        self._watch = watch

    def add(self, rows: Sequence[NewSuppression], noted: Noted | None = None) -> int:
        """Add suppressions. Returns how many are new. If any is, `noted` is written as well."""
        with transaction(self._engine) as connection:
            return _note(connection, noted, add_suppressions(connection, rows, self._watch))

    def lift(
        self,
        address_hash: bytes,
        scope: str,
        by: str,
        *,
        reason: SuppressionReason | None = None,
        detail: str | None = None,
        noted: Noted | None = None,
    ) -> int:
        """End the suppressions of this recipient and scope, of one reason or of all. Returns how many there were.
        If there were any, `noted` is written as well."""
        values = {
            "hash": address_hash,
            "scope": scope,
            "reason": reason,
            "by": by,
            "detail": detail and storable(detail)[:500],
        }
        with transaction(self._engine) as connection:
            ended = sum(row.was_active for row in connection.execute(_LIFT, values))
            return _note(connection, noted, ended)

    def find(self, address_hash: bytes) -> list[SuppressionView]:
        """All suppressions that this recipient ever had, newest first."""
        query = select(*_VIEW).where(Suppression.address_hash == address_hash).order_by(Suppression.id.desc())
        return self._records(SuppressionView, query)

    def page(
        self, wanted: SuppressionFilter, *, limit: int, before: UUID | None = None
    ) -> tuple[list[SuppressionView], UUID | None]:
        """Newest first, and the id before which the next page begins. None: there is no next page."""
        query: Any = select(*_VIEW).where(*conditions(wanted))
        query = newest(query, Suppression.id, limit=limit + 1, before=before)
        found = self._records(SuppressionView, query)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def all(self, wanted: SuppressionFilter) -> Iterator[SuppressionView]:
        """Newest first, read page by page, so that no transaction waits for the reader."""
        before: UUID | None = None
        while True:
            found, before = self.page(wanted, limit=EXPORT_PAGE, before=before)
            yield from found
            if before is None:
                return

    def lift_other_keys(self, hash_key: str, by: str, detail: str | None) -> int:
        """End the suppressions made under other keys. Returns how many."""
        query = (
            update(Suppression)
            .where(Suppression.hash_key != hash_key, Suppression.lifted_at.is_(None))
            .values(lifted_at=func.now(), lifted_by=by, lifted_detail=detail and storable(detail)[:500])
            .returning(Suppression.id)
        )
        return len(self._rows(query))

    def has_other_key(self, hash_key: str) -> bool:
        """Whether a suppression that is not lifted was made under another key, so that no look-up finds it."""
        return bool(self._scalar(_OTHER_KEY, {"hash_key": hash_key}))


def conditions(wanted: SuppressionFilter) -> Iterator[ColumnElement[bool]]:
    """The filter as conditions on `suppressions`."""
    yield from matching(Suppression, wanted, "channel", "scope", "reason", "source", "provider", "sender")
    yield from within(Suppression.created_at, wanted.since, wanted.until)
    if not wanted.with_ended:
        yield _STATE == "active"


def add_suppressions(
    connection: Connection, rows: Sequence[NewSuppression], watch: HardBounceWatch | None = None
) -> int:
    """Like `SuppressionRepository.add`, within the transaction of the result that caused them.

    A new suppression replaces one that has expired or would end sooner. Those that `watch` does not admit are
    held.
    """
    if rows and watch is not None:
        rows = watch.admit(connection, rows)
    if not rows:
        return 0
    values = {"rows": rows_of(connection, rows)}
    connection.execute(_MAKE_ROOM, values)
    return len(connection.execute(_ADD, values).all())


def _note(connection: Connection, noted: Noted | None, changed: int) -> int:
    """Write `noted` if anything changed. Returns `changed`."""
    if noted is not None and changed:
        connection.execute(_NOTE, {"id": noted.notification_id, "text": storable(noted.text)[:500]})
    return changed


_MAKE_ROOM: TextClause = text(f"""
WITH incoming AS MATERIALIZED ({ROWS})
UPDATE suppressions AS s SET
  lifted_at = least(now(), s.expires_at),
  lifted_by = CASE WHEN s.expires_at <= now() THEN 'expiry' ELSE 'replaced' END
FROM incoming AS r
WHERE s.address_hash = decode(r.address_hash, 'hex') AND s.scope = r.scope AND s.reason = r.reason
  AND s.lifted_at IS NULL
  AND (s.expires_at <= now() OR s.expires_at < coalesce(r.expires_at, 'infinity'))
""")

_ADD: TextClause = text(f"""
INSERT INTO suppressions {FROM_ROWS}
ON CONFLICT (address_hash, scope, reason) WHERE lifted_at IS NULL DO NOTHING
RETURNING id
""")

_LIFT: TextClause = text("""
UPDATE suppressions SET lifted_at = least(now(), expires_at),
  lifted_by = CASE WHEN expires_at <= now() THEN 'expiry' ELSE :by END,
  lifted_detail = CASE WHEN expires_at IS NULL OR expires_at > now() THEN :detail END
WHERE address_hash = :hash AND scope = :scope AND lifted_at IS NULL
  AND (CAST(:reason AS text) IS NULL OR reason = :reason)
RETURNING lifted_by <> 'expiry' AS was_active
""").bindparams(bindparam("hash", type_=LargeBinary()))

# Retention may have deleted the notification: a link works for longer than the record is kept.
_NOTE: TextClause = text("""
INSERT INTO events (notification_id, kind, detail)
SELECT id, 'recipient', CAST(:text AS text) FROM states WHERE id = :id
""")

# Two index look-ups, however many suppressions there are.
_OTHER_KEY: TextClause = text("""
SELECT EXISTS (SELECT FROM suppressions WHERE lifted_at IS NULL AND hash_key < :hash_key
    AND (expires_at IS NULL OR expires_at > now()))
  OR EXISTS (SELECT FROM suppressions WHERE lifted_at IS NULL AND hash_key > :hash_key
    AND (expires_at IS NULL OR expires_at > now()))
""")
