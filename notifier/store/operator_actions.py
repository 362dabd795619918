"""Operator records, and the changes of notifications that operators order.

A page of notifications is one transaction: lock them in the order of their ids, change those that may change,
append their events, and note the counts in the operator record. So two operators at the same time share the work,
and a run that dies leaves whole pages and a record of its progress. A trigger makes the callbacks: see `ledger`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from datetime import datetime
from operator import add
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, Select, TextClause, func, select, text, true

from notifier.domain.errors import NotFound
from notifier.domain.statuses import Reason, Status
from notifier.security.recipient_hash import HashKey
from notifier.store import binds, filters
from notifier.store.binds import among
from notifier.store.clock import clock_of
from notifier.store.engine import transaction
from notifier.store.filters import Filter, conditions
from notifier.store.ledger_sql import wipe
from notifier.store.notification_rules import GONE, HAS_EXPIRED, IS_GONE, has_expired_by
from notifier.store.repository import Repository
from notifier.store.reschedule_sql import RESCHEDULE
from notifier.store.rows import columns_of, from_row, oldest
from notifier.store.sanitize import storable
from notifier.store.schema.notifications import Notification, State
from notifier.store.schema.operations import OperatorRecord
from notifier.store.selection import Selection

#: Maximum notifications of one transaction.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class ActionCounts:
    """The progress of a run, as numbers of notifications or other rows."""

    #: Looked at so far.
    matched: int = 0
    #: Changed, published or deleted.
    changed: int = 0
    #: Left alone because `expires_at` has passed.
    expired: int = 0
    #: Left alone because the action is not allowed for them.
    skipped: int = 0

    def __add__(self, other: ActionCounts) -> ActionCounts:
        return ActionCounts(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Begun:
    id: UUID
    #: Time by the database's clock.
    at: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """One notification before the change."""

    id: UUID
    #: None: there is no such notification.
    status: Status | None
    #: Its `expires_at` has passed.
    is_expired: bool = False
    #: It can no longer be sent, because its secrets were wiped or it was redacted.
    is_gone: bool = False
    #: A provider has been called for it.
    is_tried: bool = False
    expires_at: datetime | None = None

    def is_expired_at(self, moment: datetime) -> bool:
        return self.is_expired or (self.expires_at is not None and self.expires_at <= moment)


@dataclass(frozen=True, slots=True)
class Move:
    to: Status
    #: Notifications in other statuses are skipped.
    sources: tuple[Status, ...]
    #: The text of the event.
    detail: str = ""
    #: The first retry is due at this time …
    start: datetime | None = None
    #: … and each further one this much later.
    pause_seconds: float = 0.0
    #: Maximum notifications of a page. None, or more than `PAGE`: `PAGE`.
    limit: int | None = None
    #: A job does its next page at most this long before the page is due.
    ahead_seconds: float = 0.0
    #: The new time, if `to` is `scheduled`.
    send_at: datetime | None = None

    def may_move(self, one: Seen) -> bool:
        if one.status not in self.sources:
            return False
        return not (one.is_gone if self.to is Status.RETRYING else self.send_at is not None and one.is_tried)

    def is_too_late_for(self, one: Seen) -> bool:
        """Whether it must be left alone because of its `expires_at`."""
        if self.send_at is not None:
            return one.is_expired_at(self.send_at)
        return one.is_expired and self.to is Status.RETRYING


@dataclass(frozen=True, slots=True)
class Page:
    tally: ActionCounts
    #: Of ids given one by one: those that were not changed.
    left: tuple[Seen, ...]
    #: The last id of this page, after which the next page begins. None: this page was empty.
    last: UUID | None


@dataclass(frozen=True, slots=True)
class SelectionGroup:
    """Selected notifications with the same status, reason, provider and template."""

    status: str
    reason: str | None
    provider: str | None
    template: str
    count: int
    #: How many of these have an `expires_at` that has passed.
    expired: int
    #: How many others can no longer be sent, because their secrets were wiped or they were redacted.
    gone: int = 0


@dataclass(frozen=True, slots=True)
class RecordView:
    id: UUID
    at: datetime
    operator: str
    action: str
    selection: dict[str, Any]
    reason: str | None
    result: dict[str, Any]
    #: None: still running, or interrupted.
    finished_at: datetime | None


_RECORD = columns_of(RecordView, OperatorRecord)


class OperatorActions(Repository):
    def __init__(self, engine: Engine, hash_key: HashKey | None = None) -> None:
        super().__init__(engine)
        self.hash_key = hash_key or HashKey()

    def begin(self, operator: str, action: str, selection: Mapping[str, Any], reason: str | None) -> Begun:
        """Write the record. It is committed before anything is done."""
        with transaction(self._engine) as connection:
            return begin_record(connection, operator, action, selection, reason)

    def note(self, record: UUID, tally: ActionCounts, *, is_finished: bool, **more: Any) -> None:
        """Write progress into the record, and whether the action has ended. `more`: further parts of the
        result."""
        with transaction(self._engine) as connection:
            note_result(connection, record, tally, is_finished=is_finished, **more)

    def record(self, record: UUID) -> RecordView:
        """The record. Raises `NotFound`."""
        found = self._records(RecordView, select(*_RECORD).where(OperatorRecord.id == record))
        if not found:
            raise NotFound(f"no operator record has the id {record}")
        return found[0]

    def move_page(
        self, record: UUID, selection: Selection, move: Move, *, after: UUID | None, tally: ActionCounts
    ) -> Page:
        """Change the next page of the selection: at most `PAGE` notifications above `after`, oldest first.

        `tally` counts the pages before. The sum goes into the record in the same transaction.
        """
        with transaction(self._engine, plans_by_values=True) as connection:
            return self.move_page_in(connection, record, selection, move, after=after, tally=tally)

    def move_page_in(
        self,
        connection: Connection,
        record: UUID,
        selection: Selection,
        move: Move,
        *,
        after: UUID | None,
        tally: ActionCounts,
    ) -> Page:
        """Like `move_page`, within the caller's transaction."""
        seen, last = self._lock_page(connection, selection, move.sources, after, min(move.limit or PAGE, PAGE))
        if last is None:
            return Page(tally, (), None)
        may = [one for one in seen if move.may_move(one)]
        over = [one for one in may if move.is_too_late_for(one)]
        moving = [one.id for one in may if one not in over]
        if moving:
            values = {
                "ids": moving,
                "to": move.to,
                "sources": list(move.sources),
                "detail": storable(move.detail)[:1000],
                "start": move.start,
                "offset": tally.changed,
                "pause": move.pause_seconds,
                "send_at": move.send_at,
            }
            connection.execute(_MOVE if move.send_at is None else RESCHEDULE, values)
        tally += ActionCounts(len(seen), len(moving), len(over), len(seen) - len(may))
        note_result(connection, record, tally, is_finished=False)
        moved = set(moving)
        left = tuple(one for one in seen if one.id not in moved) if selection.filter is None else ()
        return Page(tally, left, last)

    def preview(
        self, selection: Selection, sources: Sequence[Status], *, send_at: datetime | None = None
    ) -> list[SelectionGroup]:
        """What a run with these sources would find, largest group first. `send_at`: leave out what was tried
        before, and count what has expired by then."""
        is_expired = HAS_EXPIRED if send_at is None else has_expired_by(func.greatest(func.now(), send_at))
        columns: list[Any] = [getattr(Notification, name) for name in ("status", "reason", "provider", "template")]
        counted: Any = select(
            *columns,
            func.count().label("count"),
            func.count().filter(is_expired).label("expired"),
            func.count().filter(IS_GONE, ~is_expired).label("gone"),
        )
        query = counted.where(*self.selected(selection), Notification.status.in_(sources)).group_by(*columns)
        if send_at is not None:
            query = query.where(~_IS_TRIED)
        return sorted(self._records(SelectionGroup, query), key=lambda group: -group.count)

    def look(self, ids: Sequence[UUID]) -> list[Seen]:
        """The state of these notifications, in the order of their ids."""
        wanted = sorted(set(ids))
        return _with_missing(wanted, self._records(Seen, select(*_SEEN).where(among(Notification.id, wanted))))

    def last_due(self, selection: Selection) -> datetime | None:
        """When the last notification of an earlier retry of the same selection is due; a further run is spaced
        from there. None: none waits."""
        wanted = replace(selection.filter or Filter(), status=Status.RETRYING, reason=Reason.OPERATOR)
        # A notification with a detail was not retried: it waits because an operator paused its providers. One that
        # waits for its `send_at` was not retried either: it was released after the database was restored.
        is_retried = func.coalesce(Notification.send_at < Notification.due_at, true())
        found = [*conditions(wanted, self.hash_key), Notification.detail.is_(None), is_retried]
        if selection.filter is None:
            found.append(among(Notification.id, selection.ids))
        last: datetime | None = self._scalar(select(func.max(Notification.due_at)).where(*found))
        return last

    def selected(self, selection: Selection) -> list[ColumnElement[bool]]:
        """The selection as conditions on `Notification`."""
        if selection.filter is None:
            return [among(Notification.id, selection.ids)]
        return list(conditions(selection.filter, self.hash_key))

    def _lock_page(
        self,
        connection: Connection,
        selection: Selection,
        sources: Sequence[Status],
        after: UUID | None,
        limit: int,
    ) -> tuple[list[Seen], UUID | None]:
        """The next page, locked, and the id after which the next page begins. None: this page is empty."""
        query: Any = select(*_SEEN)
        if selection.filter is None:
            rest = sorted(value for value in set(selection.ids) if after is None or value > after)[:limit]
            chosen = query.where(among(Notification.id, rest)).order_by(Notification.id)
            found = connection.execute(chosen.with_for_update(of=State))
            return _with_missing(rest, [from_row(Seen, row) for row in found]), rest[-1] if rest else None
        query = query.where(*self.selected(selection), Notification.status.in_(sources))
        if after is not None:
            query = query.where(*filters.after(after))
        query = oldest(query, Notification.id, limit=limit, after=None)
        rows, last = _locked(connection, query, Notification.id, State)
        return [from_row(Seen, row) for row in rows], last


_IS_TRIED: ColumnElement[bool] = Notification.attempt_count > 0
_SEEN: Any = columns_of(Seen, Notification, is_expired=HAS_EXPIRED, is_gone=IS_GONE, is_tried=_IS_TRIED)


def begin_record(
    connection: Connection, operator: str, action: str, selection: Mapping[str, Any], reason: str | None
) -> Begun:
    """Like `OperatorActions.begin`, within the caller's transaction."""
    row = {
        "id": clock_of(connection).new_id(),
        "operator": storable(operator),
        "action": action,
        "selection": as_json(selection),
        "reason": reason and storable(reason),
    }
    return Begun(row["id"], connection.execute(_BEGIN, row).scalar_one())


def note_result(
    connection: Connection, record: UUID, tally: ActionCounts, *, is_finished: bool, **more: Any
) -> None:
    """Like `OperatorActions.note`, within the caller's transaction."""
    row = {"id": record, "result": as_json({**asdict(tally), **more}), "is_finished": is_finished}
    connection.execute(_NOTE_RESULT, row)


def act_on_page(
    engine: Engine,
    query: Select[Any],
    record: UUID,
    tally: ActionCounts,
    act: Callable[[Connection, Sequence[Any]], ActionCounts | None],
    *,
    lock: Any = None,
) -> tuple[ActionCounts, UUID | None]:
    """One page of a run, in one transaction: lock its rows, call `act` on them, and note the counts in the record.

    `lock`: the table whose rows are locked; None: all tables. `act` returns the counts of its page; None: all rows
    were changed. Returns the counts so far, and the last id of the page; None: the page was empty. If another
    action was faster with the whole page, nothing is left to do.
    """
    with transaction(engine, plans_by_values=True) as connection:
        rows, last = _locked(connection, query, query.selected_columns.id, lock)
        if rows:
            tally += act(connection, rows) or ActionCounts(len(rows), len(rows))
            note_result(connection, record, tally, is_finished=False)
    return tally, last


def _locked(
    connection: Connection, query: Select[Any], id_: ColumnElement[UUID], lock: Any
) -> tuple[Sequence[Any], UUID | None]:
    """The rows of a page that `query` still finds once they are locked, and the last id of it; None: it is empty.

    First found, then locked. A statement that does both goes on behind the rows that another action has just
    changed, waits for that one's next page there, and follows it to its end, longer than a statement may take.
    """
    ids = connection.execute(query.with_only_columns(id_)).scalars().all()
    if not ids:
        return (), None
    return connection.execute(query.where(among(id_, ids)).with_for_update(of=lock)).all(), ids[-1]


def as_json(value: Any) -> str:
    """The JSON of a selection or a result."""
    return json.dumps(storable(value))


def _with_missing(ids: Sequence[UUID], seen: Sequence[Seen]) -> list[Seen]:
    found = {one.id: one for one in seen}
    return [found.get(value, Seen(value, None)) for value in ids]


_BEGIN: TextClause = text("""
INSERT INTO operator_records (id, operator, action, selection, reason)
VALUES (:id, :operator, :action, CAST(:selection AS jsonb), :reason)
RETURNING at
""")

_NOTE_RESULT: TextClause = text("""
UPDATE operator_records SET result = CAST(:result AS jsonb),
  finished_at = CASE WHEN :is_finished THEN now() ELSE finished_at END
WHERE id = :id
""")

# The page's SELECT has locked the rows. The status is checked again, so that no change is illegal, whoever calls
# this. A spaced retry is due later, and its deadline counts from its own due time.
_MOVE: TextClause = text(f"""
WITH given AS MATERIALIZED (
  SELECT id, greatest(now(), CAST(:start AS timestamptz)
      + make_interval(secs => (:offset + row_number() OVER (ORDER BY id) - 1) * CAST(:pause AS double precision)))
    AS due_at
  FROM unnest(:ids) AS wanted(id)
), moved AS (
  UPDATE states AS n SET
    status = CAST(:to AS text),
    reason = 'operator',
    detail = NULL,
    -- The `send_at` of a notification that an operator resolves may still be in the future.
    due_at = CASE WHEN :to = 'retrying' THEN greatest(given.due_at, m.send_at) END,
    replayed_at = CASE WHEN :to = 'retrying' THEN given.due_at ELSE n.replayed_at END,
    replayed_attempts = CASE WHEN :to = 'retrying' THEN n.attempt_count ELSE n.replayed_attempts END,
    crash_count = CASE WHEN :to = 'retrying' THEN 0 ELSE n.crash_count END,
    sent_at = CASE WHEN :to = 'sent' THEN now() ELSE n.sent_at END,
    updated_at = now()
  FROM given JOIN messages AS m ON m.id = given.id
  WHERE n.id = given.id AND n.status = ANY(:sources)
    -- A notification that was wiped or redacted cannot be sent.
    AND (:to <> 'retrying' OR NOT {GONE})
  RETURNING n.id, n.has_secrets
), wiped AS (
  {wipe("(SELECT id, has_secrets FROM moved WHERE :to IN ('sent', 'cancelled'))")}
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason, detail)
  SELECT moved.id, line.kind, line.status, line.reason, line.detail
  FROM moved CROSS JOIN (VALUES
    (1, 'operator', NULL, NULL, CAST(:detail AS text)),
    (2, 'status', CAST(:to AS text), 'operator', NULL)) AS line(place, kind, status, reason, detail)
  ORDER BY moved.id, line.place
)
SELECT id FROM moved
""").bindparams(binds.IDS, binds.texts("sources"))
