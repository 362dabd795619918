"""Suppressions in bulk: those that a mass alarm held, and those that are lifted by condition. In pages, each a
transaction of its own with the counts of the operator's record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, select, update

from notifier.domain.statuses import Channel, SuppressionReason
from notifier.store.engine import transaction
from notifier.store.operator_actions import ActionCounts, note_result
from notifier.store.records import NewSuppression
from notifier.store.sanitize import storable
from notifier.store.schema.notifications import HeldSuppression, Suppression
from notifier.store.suppressions import SuppressionFilter, add_suppressions, conditions

#: Rows of one transaction.
PAGE = 500


@dataclass(frozen=True, slots=True)
class HeldFilter:
    """Which ones; what is None does not matter."""

    provider: str | None = None
    sender: str | None = None
    #: Held not before, and before.
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class HeldView:
    """One as operators see it."""

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


_VIEW: tuple[Any, ...] = (
    HeldSuppression.id,
    func.encode(HeldSuppression.address_hash, "hex"),
    *(getattr(HeldSuppression, name) for name in list(HeldView.__dataclass_fields__)[2:]),
)
_ROW = tuple(
    getattr(HeldSuppression, name) for name in NewSuppression.__dataclass_fields__ if name != "is_refusal"
)


class HeldSuppressionRepository:
    """Thread-safe: it holds nothing but the engine. Every method raises `ServiceUnavailable`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(self, wanted: HeldFilter, *, limit: int, before: UUID | None = None) -> list[HeldView]:
        """The newest `limit` that were held before `before`."""
        query = select(*_VIEW).where(*_held(wanted)).order_by(HeldSuppression.id.desc()).limit(limit)
        if before is not None:
            query = query.where(HeldSuppression.id < before)
        with transaction(self._engine) as connection:
            return [HeldView(*row) for row in connection.execute(query)]

    def count(self, wanted: HeldFilter) -> int:
        """How many there are."""
        with transaction(self._engine) as connection:
            query = select(func.count()).select_from(HeldSuppression).where(*_held(wanted))
            return int(connection.execute(query).scalar_one())

    def end_page(
        self, wanted: HeldFilter, record: UUID, tally: ActionCounts, *, apply: bool
    ) -> ActionCounts | None:
        """Suppress the next ones, or forget them. Returns the counts with theirs; None: there is none any more."""
        query: Any = select(HeldSuppression.id, *_ROW).where(*_held(wanted)).order_by(HeldSuppression.id)
        with transaction(self._engine) as connection:
            rows = connection.execute(query.limit(PAGE).with_for_update()).all()
            if not rows:
                return None
            if apply:
                add_suppressions(connection, [_new(row) for row in rows])
            ids = [row.id for row in rows]
            connection.execute(delete(HeldSuppression).where(HeldSuppression.id.in_(ids)))
            tally += ActionCounts(len(rows), len(rows))
            note_result(connection, record, tally, is_finished=False)
        return tally

    def count_liftable(self, wanted: SuppressionFilter) -> int:
        """How many `lift_page` would lift in all."""
        with transaction(self._engine) as connection:
            query = select(func.count()).select_from(Suppression).where(*conditions(wanted))
            return int(connection.execute(query).scalar_one())

    def lift_page(
        self, wanted: SuppressionFilter, record: UUID, tally: ActionCounts, *, by: str, detail: str
    ) -> ActionCounts | None:
        """Lift the next ones that the filter finds. Returns the counts with theirs; None: there is none left."""
        with transaction(self._engine) as connection:
            ids = self._lock(connection, wanted)
            if not ids:
                return None
            values = {"lifted_at": func.now(), "lifted_by": by, "lifted_detail": storable(detail)[:500]}
            connection.execute(update(Suppression).where(Suppression.id.in_(ids)).values(values))
            tally += ActionCounts(len(ids), len(ids))
            note_result(connection, record, tally, is_finished=False)
        return tally

    @staticmethod
    def _lock(connection: Connection, wanted: SuppressionFilter) -> list[UUID]:
        query = select(Suppression.id).where(*conditions(wanted)).order_by(Suppression.id)
        return list(connection.execute(query.limit(PAGE).with_for_update()).scalars())


def _held(wanted: HeldFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.provider is not None:
        found.append(HeldSuppression.provider == wanted.provider)
    if wanted.sender is not None:
        found.append(HeldSuppression.sender == wanted.sender)
    if wanted.since is not None:
        found.append(HeldSuppression.held_at >= wanted.since)
    if wanted.until is not None:
        found.append(HeldSuppression.held_at < wanted.until)
    return found


def _new(row: Any) -> NewSuppression:
    return NewSuppression(
        bytes(row.address_hash),
        row.hash_key,
        Channel(row.channel),
        row.scope,
        SuppressionReason(row.reason),
        row.source,
        row.detail,
        row.notification_id,
        row.expires_at,
        row.provider,
        row.sender,
    )
