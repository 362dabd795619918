"""A database that was restored from a backup: what was on its way in it is held, and released by an operator.

Each page is one transaction, locked in the order of ids; the new identity is stored last. So a run that dies
leaves programs that still wait, and is run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Engine, TextClause, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID

from notifier.domain.statuses import Reason, Status
from notifier.security.recipient_hash import HashKey
from notifier.store.engine import database_verdict, transaction
from notifier.store.filters import Filter, conditions
from notifier.store.identity import IdentityCheck, store_new
from notifier.store.ledger_sql import GONE
from notifier.store.operator_actions import PAGE, ActionCounts, Begun, note_result
from notifier.store.rows import from_row
from notifier.store.schema.notifications import Notification


@dataclass(frozen=True, slots=True)
class HeldGroup:
    """So many notifications of one channel, lane and status that are held, or would be."""

    channel: str
    lane: str
    status: str
    count: int
    #: So many of them have an `expires_at` that has passed.
    expired: int
    #: When the first and the last of them were accepted.
    oldest: datetime
    newest: datetime


class RestoredRepository:
    """Thread-safe: it holds nothing but engine and key. Every method raises `ServiceUnavailable`."""

    def __init__(self, engine: Engine, hash_key: HashKey) -> None:
        self._engine = engine
        self._hash_key = hash_key

    def verdict(self) -> IdentityCheck | None:
        """Whether it is the database it was; None: its tables are older than that question."""
        return database_verdict(self._engine)

    def accept(self, verdict: IdentityCheck) -> None:
        """From now on it is the database it is: programs go on."""
        with transaction(self._engine) as connection:
            store_new(connection, verdict.current)

    def under_way(self) -> tuple[list[HeldGroup], int]:
        """What holding would hold: notifications, and how many callbacks."""
        with transaction(self._engine) as connection:
            rows = connection.execute(_UNDER_WAY).all()
            callbacks: int = connection.execute(_CALLBACKS_UNDER_WAY).scalar_one()
        return [from_row(HeldGroup, row) for row in rows], callbacks

    def hold_page(
        self, begun: Begun, detail: str, *, after: UUID | None, tally: ActionCounts
    ) -> tuple[ActionCounts, UUID | None]:
        """Hold the next page of what was accepted before the run began. Returns the counts so far, and where the
        next page begins; None: the end."""
        values = {"before": begun.at, "after": after, "limit": PAGE, "detail": detail}
        with transaction(self._engine) as connection:
            ids = connection.execute(_HOLD, values).scalars().all()
            tally += ActionCounts(len(ids), len(ids))
            note_result(connection, begun.id, tally, is_finished=False)
        return tally, max(ids, default=None)

    def hold_callbacks(self, begun: Begun) -> int:
        """Park what was to be called before the run began. Returns how many."""
        total = 0
        while True:
            with transaction(self._engine) as connection:
                count = connection.execute(_HOLD_CALLBACKS, {"before": begun.at, "limit": PAGE}).rowcount
            total += count
            if count < PAGE:
                return total

    def held(self, wanted: Filter, ids: Sequence[UUID] = ()) -> list[HeldGroup]:
        """What is held, of those that the filter or the ids find."""
        counts: list[Any] = [
            func.count().label("count"),
            func.count().filter(Notification.expires_at <= func.now()).label("expired"),
            func.min(Notification.accepted_at).label("oldest"),
            func.max(Notification.accepted_at).label("newest"),
        ]
        columns: list[Any] = [Notification.channel, Notification.lane, Notification.status]
        query: Any = select(*columns, *counts).where(*self._held(wanted, ids))
        with transaction(self._engine, plans_by_values=True) as connection:
            rows = connection.execute(query.group_by(*columns).order_by(*columns)).all()
        return [from_row(HeldGroup, row) for row in rows]

    def release_page(
        self,
        begun: Begun,
        wanted: Filter,
        ids: Sequence[UUID],
        detail: str,
        *,
        after: UUID | None,
        tally: ActionCounts,
    ) -> tuple[ActionCounts, UUID | None]:
        """Release the next page. Returns the counts so far, and where the next page begins; None: the end."""
        query = select(Notification.id).where(*self._held(wanted, ids)).order_by(Notification.id).limit(PAGE)
        if after is not None:
            query = query.where(Notification.id > after)
        with transaction(self._engine, plans_by_values=True) as connection:
            page = connection.execute(query.with_for_update()).scalars().all()
            if not page:
                return tally, None
            values = {"ids": [str(value) for value in page], "detail": detail}
            moved = connection.execute(_RELEASE, values).scalars().all()
            expired = sum(status == Status.EXPIRED for status in moved)
            tally += ActionCounts(len(page), len(moved) - expired, expired, len(page) - len(moved))
            note_result(connection, begun.id, tally, is_finished=False)
        return tally, page[-1]

    def _held(self, wanted: Filter, ids: Sequence[UUID]) -> list[ColumnElement[bool]]:
        found = [*conditions(wanted, self._hash_key)]
        if ids:
            chosen = bindparam(None, list(ids), type_=ARRAY(PG_UUID(as_uuid=True)))
            found.append(Notification.id == func.any(chosen))
        return [*found, Notification.status == Status.UNKNOWN, Notification.reason == Reason.RESTORED]


_ON_THEIR_WAY = (
    "status IN ('scheduled', 'queued', 'sending', 'retrying', 'unknown') AND reason IS DISTINCT FROM 'restored'"
)

_UNDER_WAY: TextClause = text(f"""
SELECT channel, lane, status, count(*) AS count, count(*) FILTER (WHERE expires_at <= now()) AS expired,
  min(accepted_at) AS oldest, max(accepted_at) AS newest
FROM notifications WHERE {_ON_THEIR_WAY}
GROUP BY channel, lane, status ORDER BY channel, lane, status
""")  # noqa: S608 - constants

# Held as `unknown`, for that is what it is: it may have been sent after the backup was made. No task claims it, no
# sweep sees it, no look-up settles it; a report of the provider's still does. A claim of the first life ends: a
# late result other than "sent" moves it no more. A call that was under way has no answer here, and never will.
_HOLD: TextClause = text(f"""
WITH page AS MATERIALIZED (
  SELECT id, status AS old FROM notifications
  WHERE {_ON_THEIR_WAY} AND accepted_at <= :before
    AND id > coalesce(CAST(:after AS uuid), '00000000-0000-0000-0000-000000000000')
  ORDER BY id LIMIT :limit FOR UPDATE
), closed AS (
  UPDATE attempts AS a SET finished_at = now(), outcome = 'unknown', reason = 'outcome_unknown',
    detail = 'under way when the backup was made: its answer is not in it'
  FROM page WHERE a.notification_id = page.id AND a.outcome IS NULL
), moved AS (
  UPDATE notifications AS n SET status = 'unknown', reason = 'restored', detail = NULL, due_at = NULL,
    claim = n.claim + 1, updated_at = now()
  FROM page WHERE n.id = page.id AND n.status = page.old
  RETURNING n.id, page.old
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason, detail)
  SELECT moved.id, line.kind, line.status, line.reason, line.detail
  FROM moved CROSS JOIN LATERAL (VALUES
    (1, 'operator', NULL, NULL, CAST(:detail AS text)),
    (2, CASE WHEN moved.old = 'unknown' THEN 'held' ELSE 'status' END,
      CASE WHEN moved.old <> 'unknown' THEN 'unknown' END, 'restored', 'it was ' || moved.old)
  ) AS line(place, kind, status, reason, detail)
  ORDER BY moved.id, line.place
)
SELECT id FROM moved
""")  # noqa: S608 - constants

_CALLBACKS_UNDER_WAY: TextClause = text("SELECT count(*) FROM callbacks WHERE due_at IS NOT NULL")

_HOLD_CALLBACKS: TextClause = text("""
WITH page AS MATERIALIZED (
  SELECT id FROM callbacks WHERE due_at IS NOT NULL AND begun_at <= :before
  ORDER BY id LIMIT :limit FOR UPDATE
), closed AS (
  UPDATE callback_attempts AS a SET finished_at = now(), failure = 'restored'
  FROM page WHERE a.callback_id = page.id AND a.finished_at IS NULL
)
UPDATE callbacks AS c SET state = 'parked', failure = 'restored', due_at = NULL, settled_at = now()
FROM page WHERE c.id = page.id AND c.due_at IS NOT NULL
""")

# One whose last call has no answer is looked up first, and its template's policy decides, as it would have. The
# others are sent at their time, or are over.
_RELEASE: TextClause = text(f"""
WITH judged AS MATERIALIZED (
  SELECT n.id, EXISTS (
      SELECT 1 FROM attempts AS a
      WHERE a.notification_id = n.id AND a.number = n.attempt_count AND a.outcome = 'unknown') AS is_unknown
  FROM unnest(:ids) AS wanted(id) JOIN notifications AS n ON n.id = wanted.id
), moved AS (
  UPDATE notifications AS n SET
    status = CASE WHEN j.is_unknown THEN 'unknown' WHEN n.expires_at <= now() THEN 'expired' ELSE 'retrying' END,
    reason = CASE WHEN j.is_unknown THEN 'outcome_unknown' WHEN n.expires_at <= now() THEN 'expired'
      ELSE 'operator' END,
    detail = NULL,
    due_at = CASE WHEN j.is_unknown THEN now() WHEN n.expires_at <= now() THEN NULL
      ELSE greatest(now(), n.send_at) END,
    replayed_at = CASE WHEN j.is_unknown THEN n.replayed_at ELSE greatest(now(), n.send_at) END,
    replayed_attempts = CASE WHEN j.is_unknown THEN n.replayed_attempts ELSE n.attempt_count END,
    crash_count = 0,
    updated_at = now()
  FROM judged AS j
  WHERE n.id = j.id AND n.status = 'unknown' AND n.reason = 'restored' AND (j.is_unknown OR NOT {GONE})
  RETURNING n.id, n.status, n.reason, j.is_unknown
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason, detail)
  SELECT moved.id, line.kind, line.status, line.reason, line.detail
  FROM moved CROSS JOIN LATERAL (VALUES
    (1, 'operator', NULL, NULL, CAST(:detail AS text)),
    (2, 'status', moved.status, moved.reason, NULL)) AS line(place, kind, status, reason, detail)
  WHERE line.place = 1 OR NOT moved.is_unknown
  ORDER BY moved.id, line.place
)
SELECT status FROM moved
""").bindparams(bindparam("ids", type_=ARRAY(PG_UUID(as_uuid=False))))  # noqa: S608 - constants
