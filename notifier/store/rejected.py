"""Rejected messages for operators: find those to publish again, mark them, delete them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, TextClause, func, select, text

from notifier.domain.errors import CannotOpen
from notifier.store import binds
from notifier.store.binds import among
from notifier.store.engine import transaction
from notifier.store.operator_actions import ActionCounts, act_on_page, note_result
from notifier.store.personal_data import PersonalData
from notifier.store.repository import Repository
from notifier.store.rows import columns_of, from_row, matching, newest, oldest, within
from notifier.store.schema.notifications import RejectedMessage

#: Rejected messages of one page: each may hold 64 KiB.
PAGE = 100
#: Rejected messages that `groups` reads: a producer gone wrong makes a million in a night.
COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class RejectedSelection:
    """Those with these ids, or all that meet the conditions."""

    ids: tuple[UUID, ...] = ()
    #: When it was received.
    since: datetime | None = None
    until: datetime | None = None
    #: One of its reasons has this code, as unknown_template.
    code: str | None = None
    producer: str | None = None

    def as_dict(self) -> dict[str, Any]:
        if self.ids:
            return {"ids": [str(value) for value in self.ids]}
        return {"filter": {name: value for name, value in asdict(self).items() if value}}


@dataclass(frozen=True, slots=True)
class KeptRejection:
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
    """How many rejected messages have this as the code of their first reason."""

    code: str
    count: int


_KEPT: Any = (*columns_of(KeptRejection, RejectedMessage, without=["problem"]), RejectedMessage.sealed)


@dataclass(frozen=True, slots=True)
class RejectedGroup:
    """Rejected messages of one producer whose first reason has the same code."""

    #: None: it could not be read.
    producer: str | None
    code: str
    count: int
    #: Of these, how many were never replayed.
    waiting: int
    newest_at: datetime


class Rejections(Repository):
    def __init__(self, engine: Engine, personal_data: PersonalData | None = None) -> None:
        super().__init__(engine)
        self._personal_data = personal_data or PersonalData()

    def page(self, selection: RejectedSelection, *, after: UUID | None, again: bool = True) -> list[KeptRejection]:
        """The next page, oldest first: at most `PAGE` with an id above `after`.

        Without `again` a filter leaves out those that were replayed; ids find them all the same.
        """
        query = select(*_KEPT).where(*chosen(selection, again=again))
        rows = self._rows(oldest(query, RejectedMessage.id, limit=PAGE, after=after))
        return [self._opened(from_row(KeptRejection, row), row.sealed) for row in rows]

    def _opened(self, kept: KeptRejection, sealed: bytes | None) -> KeptRejection:
        try:
            body, headers = self._personal_data.open_rejected(kept.id, kept.body, kept.headers, sealed)
        except CannotOpen as error:
            return replace(kept, problem=str(error))
        return replace(kept, body=body, headers=headers)

    def count(self, selection: RejectedSelection, *, again: bool = True) -> list[CodeCount]:
        """How many `page` would find; the largest first."""
        first = RejectedMessage.faults[0]["code"].astext
        counted: Any = select(func.coalesce(first, "").label("code"), func.count().label("count"))
        query = counted.where(*chosen(selection, again=again)).group_by(first).order_by(func.count().desc(), first)
        return self._records(CodeCount, query)

    def groups(self) -> list[RejectedGroup]:
        """The newest `COUNTED` by producer and code: those with the most that wait come first."""
        code = func.coalesce(RejectedMessage.faults[0]["code"].astext, "").label("code")
        columns: Any = (RejectedMessage.producer, code, RejectedMessage.replayed_at, RejectedMessage.received_at)
        latest = newest(select(*columns), RejectedMessage.id, limit=COUNTED, before=None).subquery()
        waiting = func.count().filter(latest.c.replayed_at.is_(None)).label("waiting")
        counted: Any = select(
            latest.c.producer,
            latest.c.code,
            func.count().label("count"),
            waiting,
            func.max(latest.c.received_at).label("newest_at"),
        )
        order = (waiting.desc(), latest.c.producer, latest.c.code)
        return self._records(RejectedGroup, counted.group_by(latest.c.producer, latest.c.code).order_by(*order))

    def mark_replayed(self, ids: Sequence[UUID], record: UUID, tally: ActionCounts) -> None:
        """Mark these as published again, and note the counts in the operator's record."""
        with transaction(self._engine) as connection:
            connection.execute(_MARK_REPLAYED, {"ids": list(ids)})
            note_result(connection, record, tally, is_finished=False)

    def purge_page(
        self, selection: RejectedSelection, record: UUID, *, after: UUID | None, tally: ActionCounts
    ) -> tuple[ActionCounts, UUID | None]:
        """Delete the next page; see `act_on_page`."""

        def purge(connection: Connection, rows: Sequence[Any]) -> None:
            connection.execute(_PURGE, {"ids": [row.id for row in rows]})

        query = select(RejectedMessage.id).where(*chosen(selection))
        query = oldest(query, RejectedMessage.id, limit=PAGE * 10, after=after)
        return act_on_page(self._engine, query, record, tally, purge)


def chosen(selection: RejectedSelection, *, again: bool = True) -> Iterator[ColumnElement[bool]]:
    """The selection as conditions. Without `again` a filter leaves out those that were replayed."""
    if selection.ids:
        yield among(RejectedMessage.id, selection.ids)
        return
    if not again:
        yield RejectedMessage.replayed_at.is_(None)
    yield from within(RejectedMessage.received_at, selection.since, selection.until)
    if selection.code is not None:
        yield RejectedMessage.faults.contains([{"code": selection.code}])
    yield from matching(RejectedMessage, selection, "producer")


_MARK_REPLAYED: TextClause = text("""
UPDATE rejected_messages SET replayed_at = now() WHERE id = ANY(:ids)
""").bindparams(binds.IDS)

_PURGE: TextClause = text("""
DELETE FROM rejected_messages WHERE id = ANY(:ids)
""").bindparams(binds.IDS)
