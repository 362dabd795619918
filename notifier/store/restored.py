"""After a database was restored from a backup: holds what had not ended in it, until an operator releases it.

Each page is one transaction, locked in the order of ids. The new identity is stored last: if a run dies, programs
still wait, and the run is repeated. It skips numbers of callbacks once more, which does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, TextClause, func, select, text

from notifier.domain.statuses import Reason, Status
from notifier.security.recipient_hash import HashKey
from notifier.store import binds, filters
from notifier.store.binds import among
from notifier.store.engine import database_verdict, transaction
from notifier.store.filters import Filter, conditions
from notifier.store.identity import IdentityCheck, store_new
from notifier.store.notification_rules import GONE, HAS_EXPIRED, LIVE
from notifier.store.operator_actions import PAGE, ActionCounts, Begun, act_on_page, note_result
from notifier.store.recurring import IS_RUNNING
from notifier.store.repository import Repository
from notifier.store.rows import from_row, oldest
from notifier.store.schema.notifications import Notification, State

#: More callbacks than were made between a backup and its restoration. JavaScript counts 9 million times as far.
SKIPPED_NUMBERS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class HeldGroup:
    """Notifications of one channel, lane and status that are held, or would be held."""

    channel: str
    lane: str
    status: str
    count: int
    #: How many of these have an `expires_at` that has passed.
    expired: int
    #: When the first and the last of them were accepted.
    oldest: datetime
    newest: datetime


class RestoredRepository(Repository):
    def __init__(self, engine: Engine, hash_key: HashKey) -> None:
        super().__init__(engine)
        self._hash_key = hash_key

    def verdict(self) -> IdentityCheck | None:
        """Whether this is still the same database. None: it has no table that says so."""
        return database_verdict(self._engine)

    def accept(self, verdict: IdentityCheck) -> None:
        """Accept this database from now on, so that programs go on."""
        with transaction(self._engine) as connection:
            store_new(connection, verdict.current)

    def under_way(self) -> tuple[list[HeldGroup], int]:
        """The notifications that would be held, and the number of callbacks."""
        with transaction(self._engine) as connection:
            rows = connection.execute(_UNDER_WAY).all()
            callbacks: int = connection.execute(_CALLBACKS_UNDER_WAY).scalar_one()
        return [from_row(HeldGroup, row) for row in rows], callbacks

    def hold_page(
        self, begun: Begun, detail: str, *, after: UUID | None, tally: ActionCounts
    ) -> tuple[ActionCounts, UUID | None]:
        """Hold the next page of what was accepted before the run began. Returns the same as `act_on_page`."""
        values = {"before": begun.at, "after": after, "limit": PAGE, "detail": detail}
        with transaction(self._engine) as connection:
            ids = connection.execute(_HOLD, values).scalars().all()
            tally += ActionCounts(len(ids), len(ids))
            note_result(connection, begun.id, tally, is_finished=False)
        return tally, max(ids, default=None)

    def skip_callback_numbers(self) -> None:
        """Number new callbacks above all that were made since the backup: producers drop what has a lower number
        than they have seen."""
        self._execute(_SKIP_NUMBERS, {"count": SKIPPED_NUMBERS})

    def hold_callbacks(self, begun: Begun) -> int:
        """Park the callbacks that were waiting when the run began. Returns how many."""
        return self._execute_in_pages(_HOLD_CALLBACKS, {"before": begun.at}, PAGE)

    def planned(self) -> int:
        """Number of recurring notifications that are not paused."""
        return int(self._scalar(_PLANNED))

    def pause_recurring(self) -> int:
        """Pause them, because what was due since the backup may have been sent. Returns how many."""
        return self._execute(_PAUSE_RECURRING)

    def stop_jobs(self) -> int:
        """Stop jobs, because what they would retry may have been retried since the backup. Returns how many."""
        return self._execute(_STOP_JOBS)

    def held(self, wanted: Filter, ids: Sequence[UUID] = ()) -> list[HeldGroup]:
        """The held notifications that the filter or the ids find, in groups."""
        counts: list[Any] = [
            func.count().label("count"),
            func.count().filter(HAS_EXPIRED).label("expired"),
            func.min(Notification.accepted_at).label("oldest"),
            func.max(Notification.accepted_at).label("newest"),
        ]
        columns: list[Any] = [Notification.channel, Notification.lane, Notification.status]
        query: Any = select(*columns, *counts).where(*self._held(wanted, ids))
        return self._records(HeldGroup, query.group_by(*columns).order_by(*columns))

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
        """Release the next page; see `act_on_page`."""

        def release(connection: Connection, rows: Sequence[Any]) -> ActionCounts:
            values = {"ids": [row.id for row in rows], "detail": detail}
            moved = connection.execute(_RELEASE, values).scalars().all()
            expired = sum(status == Status.EXPIRED for status in moved)
            return ActionCounts(len(rows), len(moved) - expired, expired, len(rows) - len(moved))

        query = select(Notification.id).where(*self._held(wanted, ids))
        if after is not None:
            query = query.where(*filters.after(after))
        query = oldest(query, Notification.id, limit=PAGE, after=None)
        return act_on_page(self._engine, query, begun.id, tally, release, lock=State)

    def _held(self, wanted: Filter, ids: Sequence[UUID]) -> list[ColumnElement[bool]]:
        found = [*conditions(wanted, self._hash_key)]
        if ids:
            found.append(among(Notification.id, ids))
        return [*found, Notification.status == Status.UNKNOWN, Notification.reason == Reason.RESTORED]


_ON_THEIR_WAY = f"""
FROM states AS n JOIN messages AS m ON m.id = n.id WHERE {LIVE} AND n.reason IS DISTINCT FROM 'restored'"""

_UNDER_WAY: TextClause = text(f"""
SELECT n.channel, n.lane, n.status, count(*) AS count, count(*) FILTER (WHERE m.expires_at <= now()) AS expired,
  min(m.accepted_at) AS oldest, max(m.accepted_at) AS newest
{_ON_THEIR_WAY}
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
""")

# Held as `unknown`, because it may have been sent after the backup was made. No task claims it, no sweep sees it
# and no look-up settles it, but a provider report still does. Claims from before the backup end, so a late result
# other than "sent" changes nothing. A call that was under way has no answer here, and never will.
_HOLD: TextClause = text(f"""
WITH page AS MATERIALIZED (
  SELECT n.id, n.status AS old
  {_ON_THEIR_WAY} AND m.accepted_at <= :before
    AND n.id > coalesce(CAST(:after AS uuid), '00000000-0000-0000-0000-000000000000')
  ORDER BY n.id LIMIT :limit FOR UPDATE OF n
), closed AS (
  UPDATE attempts AS a SET finished_at = now(), outcome = 'unknown', reason = 'outcome_unknown',
    detail = 'under way when the backup was made: its answer is not in it'
  FROM page WHERE a.notification_id = page.id AND a.outcome IS NULL
), moved AS (
  UPDATE states AS n SET status = 'unknown', reason = 'restored', detail = NULL, due_at = NULL,
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

_SKIP_NUMBERS: TextClause = text("""
SELECT setval(s.name, nextval(s.name) + :count)
FROM CAST(pg_get_serial_sequence('callbacks', 'sequence') AS regclass) AS s(name)
""")

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

_PLANNED: TextClause = text("SELECT count(*) FROM recurring_notifications WHERE paused_at IS NULL")

# A run that was under way ends, even if it was paused, because the rest of its list may have got the message.
_PAUSE_RECURRING: TextClause = text(f"""
UPDATE recurring_notifications AS n SET paused_at = coalesce(paused_at, now()), claim_token = NULL,
  leased_until = NULL,
  run_finished_at = CASE WHEN run_at IS NOT NULL THEN coalesce(run_finished_at, now()) END,
  note = 'paused when the database was restored from a backup'
WHERE paused_at IS NULL OR {IS_RUNNING}
""")  # noqa: S608 - a constant

_STOP_JOBS: TextClause = text("""
WITH stopped AS (
  UPDATE jobs SET state = 'stopped', due_at = NULL, failure = 'the database was restored from a backup'
  WHERE due_at IS NOT NULL RETURNING id
)
UPDATE operator_records AS r SET finished_at = now() FROM stopped WHERE r.id = stopped.id
""")

# If the last call has no answer, it is looked up first, and then the template's policy decides. The others are
# sent at their time, or have expired.
_RELEASE: TextClause = text(f"""
WITH judged AS MATERIALIZED (
  SELECT n.id, EXISTS (
      SELECT 1 FROM attempts AS a
      WHERE a.notification_id = n.id AND a.number = n.attempt_count AND a.outcome = 'unknown') AS is_unknown
  FROM unnest(:ids) AS wanted(id) JOIN states AS n ON n.id = wanted.id
), moved AS (
  UPDATE states AS n SET
    status = CASE WHEN j.is_unknown THEN 'unknown' WHEN m.expires_at <= now() THEN 'expired' ELSE 'retrying' END,
    reason = CASE WHEN j.is_unknown THEN 'outcome_unknown' WHEN m.expires_at <= now() THEN 'expired'
      ELSE 'operator' END,
    detail = NULL,
    due_at = CASE WHEN j.is_unknown THEN now() WHEN m.expires_at <= now() THEN NULL
      ELSE greatest(now(), m.send_at) END,
    replayed_at = CASE WHEN j.is_unknown THEN n.replayed_at ELSE greatest(now(), m.send_at) END,
    replayed_attempts = CASE WHEN j.is_unknown THEN n.replayed_attempts ELSE n.attempt_count END,
    crash_count = 0,
    updated_at = now()
  FROM judged AS j JOIN messages AS m ON m.id = j.id
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
""").bindparams(binds.IDS)  # noqa: S608 - constants
