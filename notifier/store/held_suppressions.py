"""Bulk changes of suppressions: those that a mass alarm held, and those that an operator lifts by filter.

Each page is one transaction, together with the counts of the operator's record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from notifier.domain.errors import WrongSelection
from notifier.store.advisory_locks import AdvisoryLock, try_lock
from notifier.store.engine import transaction
from notifier.store.operator_actions import ActionCounts, act_on_page
from notifier.store.records import NewSuppression
from notifier.store.repository import Repository
from notifier.store.rows import columns_of, from_row, matching, newest, oldest, within
from notifier.store.sanitize import storable
from notifier.store.schema.feedback import HeldSuppression
from notifier.store.schema.notifications import Suppression
from notifier.store.suppressions import SuppressionFilter, add_suppressions, conditions

#: Maximum rows of one transaction.
PAGE = 500


@dataclass(frozen=True, slots=True)
class HeldFilter:
    """All conditions must hold. None: no condition."""

    provider: str | None = None
    sender: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class HeldView:
    id: UUID
    #: Hexadecimal.
    address_hash: str
    channel: str
    scope: str
    reason: str
    source: str
    detail: str | None
    notification_id: UUID | None
    provider: str | None
    sender: str | None
    held_at: datetime


_VIEW = columns_of(HeldView, HeldSuppression, address_hash=func.encode(HeldSuppression.address_hash, "hex"))
_ROW = columns_of(NewSuppression, HeldSuppression, without=["is_refusal"])


class HeldSuppressionRepository(Repository):
    def page(self, wanted: HeldFilter, *, limit: int, before: UUID | None = None) -> list[HeldView]:
        """Newest first. `before` is the last id of the previous page."""
        query = select(*_VIEW).where(*_held(wanted))
        return self._records(HeldView, newest(query, HeldSuppression.id, limit=limit, before=before))

    def count(self, wanted: HeldFilter) -> int:
        return int(self._scalar(select(func.count()).select_from(HeldSuppression).where(*_held(wanted))))

    @contextmanager
    def deciding(self) -> Iterator[Callable[[], None]]:
        """Hold the lock for the whole of a decision, so that nobody else decides meanwhile. It yields a function
        to call before each page: a session that rests for long is ended, and its lock with it.

        Raises:
            WrongSelection: somebody else is deciding at this moment.
        """
        with transaction(self._engine) as connection:
            if not try_lock(connection, AdvisoryLock.HELD_SUPPRESSIONS):
                raise WrongSelection("somebody decides about held suppressions just now: look again in a minute")
            yield lambda: connection.execute(select(1)).close()

    def end_page(
        self, wanted: HeldFilter, record: UUID, tally: ActionCounts, *, apply: bool
    ) -> ActionCounts | None:
        """Suppress the next ones, or delete them. Returns the counts so far. None: there are no more."""

        def end(connection: Connection, rows: Sequence[Any]) -> None:
            if apply:
                add_suppressions(connection, [from_row(NewSuppression, row) for row in rows])
            connection.execute(delete(HeldSuppression).where(HeldSuppression.id.in_([row.id for row in rows])))

        query: Any = select(HeldSuppression.id, *_ROW).where(*_held(wanted))
        query = oldest(query, HeldSuppression.id, limit=PAGE, after=None)
        tally, last = act_on_page(self._engine, query, record, tally, end)
        return None if last is None else tally

    def count_liftable(self, wanted: SuppressionFilter) -> int:
        """How many suppressions `lift_page` would lift in total."""
        return int(self._scalar(select(func.count()).select_from(Suppression).where(*conditions(wanted))))

    def lift_page(
        self, wanted: SuppressionFilter, record: UUID, tally: ActionCounts, *, by: str, detail: str
    ) -> ActionCounts | None:
        """Lift the next ones that the filter finds. Returns the counts so far. None: there are no more."""

        def lift(connection: Connection, rows: Sequence[Any]) -> None:
            values = {"lifted_at": func.now(), "lifted_by": by, "lifted_detail": storable(detail)[:500]}
            ids = [row.id for row in rows]
            connection.execute(update(Suppression).where(Suppression.id.in_(ids)).values(values))

        query = select(Suppression.id).where(*conditions(wanted))
        query = oldest(query, Suppression.id, limit=PAGE, after=None)
        tally, last = act_on_page(self._engine, query, record, tally, lift)
        return None if last is None else tally


def _held(wanted: HeldFilter) -> Iterator[ColumnElement[bool]]:
    yield from matching(HeldSuppression, wanted, "provider", "sender")
    yield from within(HeldSuppression.held_at, wanted.since, wanted.until)
