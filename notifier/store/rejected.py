"""What operators do with rejected messages: find those to publish again, mark them, delete them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Engine, TextClause, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID

from notifier.domain.errors import CannotOpen
from notifier.store.engine import transaction
from notifier.store.operator_actions import ActionCounts, among, note_result
from notifier.store.personal_data import PersonalData
from notifier.store.schema.notifications import RejectedMessage

#: Rejected messages of one page: each may hold 64 KiB.
PAGE = 100


@dataclass(frozen=True, slots=True)
class RejectedSelection:
    """Which rejected messages: those with these ids, or all that the conditions find."""

    ids: tuple[UUID, ...] = ()
    #: Received then or later.
    since: datetime | None = None
    #: Received before that.
    until: datetime | None = None
    #: One of its reasons has this code, as unknown_template.
    code: str | None = None
    producer: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form in which it is recorded."""
        if self.ids:
            return {"ids": [str(value) for value in self.ids]}
        return {"filter": {name: value for name, value in asdict(self).items() if value}}


@dataclass(frozen=True, slots=True)
class KeptRejection:
    """What was kept of a rejected message."""

    id: UUID
    queue: str
    body: bytes
    body_size: int
    entry: int | None
    headers: dict[str, Any]
    replayed_at: datetime | None
    #: The user who published it first, as RabbitMQ said.
    broker_user: str | None
    #: Why body and headers are empty: they are sealed, and did not open.
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class CodeCount:
    """So many of the rejected messages have this as the code of their first reason."""

    code: str
    count: int


_KEPT = (
    *(getattr(RejectedMessage, name) for name in KeptRejection.__dataclass_fields__ if name != "problem"),
    RejectedMessage.sealed,
)


class Rejections:
    """Rejected messages. Thread-safe: it holds nothing but engine and keys.

    Every method raises `ServiceUnavailable` when the database cannot be used now.
    """

    def __init__(self, engine: Engine, personal_data: PersonalData | None = None) -> None:
        self._engine = engine
        self._personal_data = personal_data or PersonalData()

    def page(self, selection: RejectedSelection, *, after: UUID | None, again: bool = True) -> list[KeptRejection]:
        """The next page, oldest first: at most `PAGE` with an id above `after`.

        Without `again` a filter passes over those that were replayed; named by id they are found all the same.
        """
        query = select(*_KEPT).where(*_selected(selection, again=again)).order_by(RejectedMessage.id).limit(PAGE)
        if after is not None:
            query = query.where(RejectedMessage.id > after)
        with transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        return [self._opened(KeptRejection(*row[:-1]), row.sealed) for row in rows]

    def _opened(self, kept: KeptRejection, sealed: bytes | None) -> KeptRejection:
        try:
            body, headers = self._personal_data.open_rejected(kept.id, kept.body, kept.headers, sealed)
        except CannotOpen as error:
            return replace(kept, problem=str(error))
        return replace(kept, body=body, headers=headers)

    def count(self, selection: RejectedSelection, *, again: bool = True) -> list[CodeCount]:
        """How many `page` would find, by the code of their first reason; the largest first."""
        first = RejectedMessage.faults[0]["code"].astext
        counted: Any = select(func.coalesce(first, ""), func.count())
        query = (
            counted.where(*_selected(selection, again=again)).group_by(first).order_by(func.count().desc(), first)
        )
        with transaction(self._engine) as connection:
            return [CodeCount(*row) for row in connection.execute(query)]

    def mark_replayed(self, ids: Sequence[UUID], record: UUID, tally: ActionCounts) -> None:
        """Note that these were published again, and in the operator's record how far it is."""
        with transaction(self._engine) as connection:
            connection.execute(_MARK_REPLAYED, {"ids": [str(value) for value in ids]})
            note_result(connection, record, tally, is_finished=False)

    def purge_page(
        self, selection: RejectedSelection, record: UUID, *, after: UUID | None, tally: ActionCounts
    ) -> tuple[ActionCounts, UUID | None]:
        """Delete the next page. Returns the counts so far, and where the next page begins; None: it was empty."""
        query = (
            select(RejectedMessage.id).where(*_selected(selection)).order_by(RejectedMessage.id).limit(PAGE * 10)
        )
        if after is not None:
            query = query.where(RejectedMessage.id > after)
        with transaction(self._engine) as connection:
            ids = list(connection.execute(query.with_for_update()).scalars())
            if not ids:
                return tally, None
            connection.execute(_PURGE, {"ids": [str(value) for value in ids]})
            tally += ActionCounts(len(ids), len(ids))
            note_result(connection, record, tally, is_finished=False)
        return tally, ids[-1]


def _selected(selection: RejectedSelection, *, again: bool = True) -> Iterator[ColumnElement[bool]]:
    if selection.ids:
        yield among(RejectedMessage.id, selection.ids)
        return
    if not again:
        yield RejectedMessage.replayed_at.is_(None)
    if selection.since is not None:
        yield RejectedMessage.received_at >= selection.since
    if selection.until is not None:
        yield RejectedMessage.received_at < selection.until
    if selection.code is not None:
        yield RejectedMessage.faults.contains([{"code": selection.code}])
    if selection.producer is not None:
        yield RejectedMessage.producer == selection.producer


_IDS = bindparam("ids", type_=ARRAY(PG_UUID(as_uuid=False)))

_MARK_REPLAYED: TextClause = text("""
UPDATE rejected_messages SET replayed_at = now() WHERE id = ANY(:ids)
""").bindparams(_IDS)

_PURGE: TextClause = text("""
DELETE FROM rejected_messages WHERE id = ANY(:ids)
""").bindparams(_IDS)
