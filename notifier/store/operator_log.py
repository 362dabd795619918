"""Reads the operator records, for people who ask who did what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select

from notifier.store.operator_actions import RecordView
from notifier.store.repository import Repository
from notifier.store.rows import columns_of, matching, newest, within
from notifier.store.schema.operations import OperatorRecord

#: Records on one page of an export.
EXPORT_PAGE = 1000
#: `actions` names the actions of this many of the newest records.
_NAMED_FROM = 10_000


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """All conditions must hold. None: no condition."""

    #: Beginning of the operator's name; upper and lower case are the same.
    operator: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


_VIEW = columns_of(RecordView, OperatorRecord)


class OperatorLog(Repository):
    def page(self, wanted: RecordFilter, *, limit: int, before: UUID | None = None) -> Sequence[RecordView]:
        """Newest first. `before` is the last id of the previous page."""
        query = select(*_VIEW).where(*_conditions(wanted))
        return self._records(RecordView, newest(query, OperatorRecord.id, limit=limit, before=before))

    def pages(self, wanted: RecordFilter) -> Iterator[Sequence[RecordView]]:
        """All records that the filter finds, newest first, in pages, so that no transaction waits for a reader."""
        before: UUID | None = None
        while page := self.page(wanted, limit=EXPORT_PAGE, before=before):
            yield page
            before = page[-1].id

    def actions(self) -> list[str]:
        """The names of the actions that were done lately, sorted."""
        latest = newest(
            select(OperatorRecord.action), OperatorRecord.id, limit=_NAMED_FROM, before=None
        ).subquery()
        query: Any = select(latest.c.action).distinct().order_by(latest.c.action)
        return [row[0] for row in self._rows(query)]


def _conditions(wanted: RecordFilter) -> Iterator[ColumnElement[bool]]:
    yield from matching(OperatorRecord, wanted, "action")
    yield from within(OperatorRecord.at, wanted.since, wanted.until)
    if wanted.operator is not None:
        yield OperatorRecord.operator.istartswith(wanted.operator, autoescape=True)
