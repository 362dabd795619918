"""Where notifications stand, for producers who ask: a few columns of many in one read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine, select, tuple_

from notifier.domain.notification_status import NotificationStatus
from notifier.store.engine import transaction
from notifier.store.records import TEST_KEYS
from notifier.store.rows import columns_of, from_row
from notifier.store.schema.notifications import IdempotencyKey, Notification

_COLUMNS = columns_of(NotificationStatus, Notification)

#: Producer, as `IdempotencyKey` has it, and key.
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class AskedStatus:
    """Which notification: this one or, if there is none, the one that was accepted under this key."""

    id: UUID
    producer: str | None = None
    idempotency_key: str | None = None
    #: Of a test key, whose idempotency keys are apart.
    is_test: bool = False

    @property
    def key(self) -> _Key | None:
        if self.producer is None or self.idempotency_key is None:
            return None
        return self.producer + TEST_KEYS * self.is_test, self.idempotency_key


class StatusLookup:
    """Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, wanted: Collection[AskedStatus]) -> dict[AskedStatus, NotificationStatus]:
        """Those that are in the record. For some hundred at once.

        Raises:
            ServiceUnavailable: the database is away.
        """
        with transaction(self._engine, plans_by_values=True) as connection:
            found = _read(connection, {one.id for one in wanted})
            keys = {one.key for one in wanted if one.id not in found}
            ids = _ids_of(connection, {key for key in keys if key is not None})
            found |= _read(connection, set(ids.values()) - found.keys())
        pairs = (
            (one, found.get(one.id) or (found.get(ids[one.key]) if one.key in ids else None)) for one in wanted
        )
        return {one: status for one, status in pairs if status is not None}


def _read(connection: Connection, ids: set[UUID]) -> dict[UUID, NotificationStatus]:
    if not ids:
        return {}
    rows = connection.execute(select(*_COLUMNS).where(Notification.id.in_(ids)))
    return {row.id: from_row(NotificationStatus, row) for row in rows}


def _ids_of(connection: Connection, keys: set[_Key]) -> dict[_Key | None, UUID]:
    if not keys:
        return {}
    pair = tuple_(IdempotencyKey.producer, IdempotencyKey.key)
    query = select(IdempotencyKey.producer, IdempotencyKey.key, IdempotencyKey.notification_id)
    return {(producer, key): id_ for producer, key, id_ in connection.execute(query.where(pair.in_(keys)))}
