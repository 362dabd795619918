"""What operators write: their records, and the moves of notifications that they order.

A page of notifications is one transaction: lock them in the order of their ids, move those that may move, append
their events, and note the counts in the operator's record. So two operators at once share the work, and a run
that dies leaves whole pages and a record that says how far it came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    TextClause,
    and_,
    bindparam,
    false,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.types import Text

from notifier.domain.errors import NotFound
from notifier.domain.statuses import Reason, Status
from notifier.security.recipient_hash import HashKey
from notifier.store.clock import clock_of
from notifier.store.engine import transaction
from notifier.store.filters import Filter, conditions, hashes_of
from notifier.store.ledger_sql import GONE, wipe
from notifier.store.rows import columns_of, from_row
from notifier.store.sanitize import storable
from notifier.store.schema.notifications import Notification, OperatorRecord

#: Notifications of one transaction.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which notifications: those with these ids, or all that the filter finds. One of the two is given."""

    ids: tuple[UUID, ...] = ()
    filter: Filter | None = None

    def as_dict(self, hash_key: HashKey) -> dict[str, Any]:
        """The form in which it is recorded: a recipient by hash, for records are kept for ever."""
        if self.filter is None:
            return {"ids": [str(value) for value in self.ids]}
        found = {name: value for name, value in asdict(self.filter).items() if value is not None}
        if found.pop("recipient", None) is not None:
            found["address_hash"] = [value.hex() for value in hashes_of(self.filter, hash_key)]
        return {"filter": found}


@dataclass(frozen=True, slots=True)
class ActionCounts:
    """How far a run is. Counts."""

    #: Looked at.
    matched: int = 0
    #: Moved, published or deleted.
    changed: int = 0
    #: Left alone because `expires_at` has passed.
    expired: int = 0
    #: Left alone because it may not be done to them.
    skipped: int = 0

    def __add__(self, other: ActionCounts) -> ActionCounts:
        return ActionCounts(
            self.matched + other.matched,
            self.changed + other.changed,
            self.expired + other.expired,
            self.skipped + other.skipped,
        )


@dataclass(frozen=True, slots=True)
class Begun:
    """An operator's record that is under way."""

    id: UUID
    #: By the database's clock.
    at: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """What is done to each notification of a run."""

    to: Status
    #: It is done to those in one of these; the others are skipped.
    sources: tuple[Status, ...]
    #: The words of the event.
    detail: str
    #: Retries are spaced from here on …
    start: datetime
    #: … by so much.
    pause_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One notification of a page, as it was before the move."""

    id: UUID
    #: None: there is no such notification.
    status: Status | None
    #: Its `expires_at` has passed.
    is_over: bool = False
    #: It cannot be sent any more: its secrets were wiped, or it was redacted.
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """What became of a page."""

    tally: ActionCounts
    #: Those of given ids that were not moved.
    left: tuple[Seen, ...]
    #: Where the next page begins; None: this one was empty.
    last: UUID | None


@dataclass(frozen=True, slots=True)
class SelectionGroup:
    """So many notifications that a run would change, or leave because their time is over."""

    status: str
    reason: str | None
    provider: str | None
    template: str
    count: int
    #: So many of them have an `expires_at` that has passed.
    expired: int
    #: So many others cannot be sent any more: their secrets were wiped, or they were redacted.
    gone: int = 0


@dataclass(frozen=True, slots=True)
class RecordView:
    """One operator record."""

    id: UUID
    at: datetime
    operator: str
    action: str
    selection: dict[str, Any]
    reason: str | None
    result: dict[str, Any]
    #: None: under way, or interrupted.
    finished_at: datetime | None


_RECORD = columns_of(RecordView, OperatorRecord)


class Operating:
    """Writes of operators. Thread-safe: it holds nothing but engine and key.

    Every method raises `ServiceUnavailable` when the database cannot be used now.
    """

    def __init__(self, engine: Engine, hash_key: HashKey | None = None) -> None:
        self._engine = engine
        self.hash_key = hash_key or HashKey()

    def begin(self, operator: str, action: str, selection: Mapping[str, Any], reason: str | None) -> Begun:
        """Write who is about to do what, to which, and why. Committed before anything is done."""
        row = {
            "operator": storable(operator),
            "action": action,
            "selection": as_json(selection),
            "reason": reason and storable(reason),
        }
        with transaction(self._engine) as connection:
            id_ = clock_of(connection).new_id()
            return Begun(id_, connection.execute(_BEGIN, {"id": id_, **row}).scalar_one())

    def note(self, record: UUID, tally: ActionCounts, *, is_finished: bool) -> None:
        """Write into the record how far it is, and that it is at its end."""
        with transaction(self._engine) as connection:
            note_result(connection, record, tally, is_finished=is_finished)

    def record(self, record: UUID) -> RecordView:
        """One operator record.

        Raises:
            NotFound: there is none with this id.
        """
        with transaction(self._engine) as connection:
            row: Any = connection.execute(select(*_RECORD).where(OperatorRecord.id == record)).one_or_none()
        if row is None:
            raise NotFound(f"no operator record has the id {record}")
        return from_row(RecordView, row)

    def move_page(
        self, record: UUID, selection: Selection, move: Move, *, after: UUID | None, tally: ActionCounts
    ) -> Page:
        """Move the next page of the selection: at most `PAGE` with an id above `after`, oldest first.

        `tally` is of the pages before; with this one's it goes into the record in the same transaction.
        """
        with transaction(self._engine, plans_by_values=True) as connection:
            seen = self._lock_page(connection, selection, move.sources, after)
            if not seen:
                return Page(tally, (), None)
            is_retry = move.to is Status.RETRYING
            may = [one for one in seen if one.status in move.sources and not (is_retry and one.is_gone)]
            over = [one for one in may if one.is_over and is_retry]
            moving = [one.id for one in may if one not in over]
            if moving:
                connection.execute(_MOVE, _parameters(move, moving, tally.changed)).all()
            tally += ActionCounts(len(seen), len(moving), len(over), len(seen) - len(may))
            note_result(connection, record, tally, is_finished=False)
        moved = set(moving)
        left = tuple(one for one in seen if one.id not in moved) if selection.filter is None else ()
        return Page(tally, left, seen[-1].id)

    def preview(self, selection: Selection, sources: Sequence[Status]) -> list[SelectionGroup]:
        """What a run with these sources would find, the largest group first. Writes nothing."""
        columns: list[Any] = [
            Notification.status,
            Notification.reason,
            Notification.provider,
            Notification.template,
        ]
        counted: Any = select(
            *columns,
            func.count().label("count"),
            func.count().filter(_IS_OVER).label("expired"),
            func.count().filter(_IS_GONE, ~_IS_OVER).label("gone"),
        )
        query = counted.where(*self._selected(selection), Notification.status.in_(sources)).group_by(*columns)
        with transaction(self._engine, plans_by_values=True) as connection:
            found = [from_row(SelectionGroup, row) for row in connection.execute(query)]
        return sorted(found, key=lambda group: -group.count)

    def look(self, ids: Sequence[UUID]) -> list[Seen]:
        """Where these stand, in the order of their ids. Writes nothing."""
        wanted = sorted(set(ids))
        query = select(Notification.id, Notification.status, _IS_OVER, _IS_GONE).where(_among(wanted))
        with transaction(self._engine) as connection:
            return _with_missing(wanted, connection.execute(query).all())

    def last_due(self, selection: Selection) -> datetime | None:
        """When the last one of an earlier retry of the same selection is due; None: none waits.

        A run that goes on where another ended, or that comes on top of it, is spaced from there.
        """
        wanted = replace(selection.filter or Filter(), status=Status.RETRYING, reason=Reason.OPERATOR)
        # With a detail it is not a retry's: it waits because an operator paused its providers.
        found = [*conditions(wanted, self.hash_key), Notification.detail.is_(None)]
        if selection.filter is None:
            found.append(_among(selection.ids))
        with transaction(self._engine, plans_by_values=True) as connection:
            last: datetime | None = connection.execute(
                select(func.max(Notification.due_at)).where(*found)
            ).scalar()
        return last

    def _selected(self, selection: Selection) -> list[ColumnElement[bool]]:
        if selection.filter is None:
            return [_among(selection.ids)]
        return list(conditions(selection.filter, self.hash_key))

    def _lock_page(
        self, connection: Connection, selection: Selection, sources: Sequence[Status], after: UUID | None
    ) -> list[Seen]:
        """The next page, locked. A row that another operator moves meanwhile is waited for, and seen as it is
        then."""
        columns: Any = select(Notification.id, Notification.status, _IS_OVER, _IS_GONE)
        query = columns.order_by(Notification.id).with_for_update()
        if selection.filter is None:
            rest = sorted(value for value in set(selection.ids) if after is None or value > after)[:PAGE]
            return _with_missing(rest, connection.execute(query.where(_among(rest))).all())
        query = query.where(*self._selected(selection), Notification.status.in_(sources)).limit(PAGE)
        if after is not None:
            query = query.where(Notification.id > after)
        return [Seen(row[0], Status(row[1]), row[2], row[3]) for row in connection.execute(query)]


#: As `ledger_sql.GONE`.
_IS_GONE: ColumnElement[bool] = or_(
    func.coalesce(func.cardinality(Notification.secret_names) == 0, false()),
    and_(Notification.recipient.is_(None), Notification.sealed.is_(None)),
)
_IS_OVER: ColumnElement[bool] = func.coalesce(Notification.expires_at <= func.now(), false())


def note_result(connection: Connection, record: UUID, tally: ActionCounts, *, is_finished: bool) -> None:
    """`Operating.note`, within a transaction."""
    row = {"id": record, "result": as_json(asdict(tally)), "is_finished": is_finished}
    connection.execute(_NOTE_RESULT, row)


def as_json(value: Any) -> str:
    """The JSON of a selection or a result."""
    return json.dumps(storable(value))


def among(column: Any, ids: Sequence[UUID]) -> ColumnElement[bool]:
    """`column = ANY(ids)`: one parameter, however many they are."""
    found: ColumnElement[bool] = column == func.any(bindparam(None, list(ids), type_=ARRAY(PG_UUID(as_uuid=True))))
    return found


def _among(ids: Sequence[UUID]) -> ColumnElement[bool]:
    return among(Notification.id, ids)


def _with_missing(ids: Sequence[UUID], rows: Sequence[Any]) -> list[Seen]:
    found = {row[0]: Seen(row[0], Status(row[1]), row[2], row[3]) for row in rows}
    return [found.get(value, Seen(value, None)) for value in ids]


def _parameters(move: Move, ids: Sequence[UUID], offset: int) -> dict[str, Any]:
    return {
        "ids": [str(value) for value in ids],
        "to": move.to,
        "sources": list(move.sources),
        "detail": storable(move.detail)[:1000],
        "start": move.start,
        "offset": offset,
        "pause": move.pause_seconds,
    }


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

# The rows are locked by the page's SELECT; the status is asked again all the same, so that no move is unlawful
# whoever calls this. A spaced retry is due later, and its deadline counts from when it is due.
_MOVE: TextClause = text(f"""
WITH given AS MATERIALIZED (
  SELECT id, greatest(now(), CAST(:start AS timestamptz)
      + make_interval(secs => (:offset + row_number() OVER (ORDER BY id) - 1) * CAST(:pause AS double precision)))
    AS due_at
  FROM unnest(:ids) AS wanted(id)
), moved AS (
  UPDATE notifications AS n SET
    status = CAST(:to AS text),
    reason = 'operator',
    detail = NULL,
    -- What an operator resolves may not have come to its time yet.
    due_at = CASE WHEN :to = 'retrying' THEN greatest(given.due_at, n.send_at) END,
    replayed_at = CASE WHEN :to = 'retrying' THEN given.due_at ELSE n.replayed_at END,
    replayed_attempts = CASE WHEN :to = 'retrying' THEN n.attempt_count ELSE n.replayed_attempts END,
    crash_count = CASE WHEN :to = 'retrying' THEN 0 ELSE n.crash_count END,
    sent_at = CASE WHEN :to = 'sent' THEN now() ELSE n.sent_at END,
    {wipe(":to IN ('sent', 'cancelled')")},
    updated_at = now()
  FROM given WHERE n.id = given.id AND n.status = ANY(:sources)
    -- What was wiped or redacted cannot be sent.
    AND (:to <> 'retrying' OR NOT {GONE})
  RETURNING n.id
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason, detail)
  SELECT moved.id, line.kind, line.status, line.reason, line.detail
  FROM moved CROSS JOIN (VALUES
    (1, 'operator', NULL, NULL, CAST(:detail AS text)),
    (2, 'status', CAST(:to AS text), 'operator', NULL)) AS line(place, kind, status, reason, detail)
  ORDER BY moved.id, line.place
)
SELECT id FROM moved
""").bindparams(bindparam("ids", type_=ARRAY(PG_UUID(as_uuid=False))), bindparam("sources", type_=ARRAY(Text())))
