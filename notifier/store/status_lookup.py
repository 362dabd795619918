"""Where notifications stand, for producers who ask: a few columns of many in one read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, select, tuple_

from notifier.domain.errors import Fault
from notifier.domain.notification_status import NotificationStatus
from notifier.store.acceptance import another_content
from notifier.store.engine import transaction
from notifier.store.personal_data import PersonalData
from notifier.store.records import TEST_KEYS
from notifier.store.rows import columns_of, from_row
from notifier.store.schema.notifications import IdempotencyKey, Notification

_COLUMNS = columns_of(NotificationStatus, Notification)

#: Producer, as `IdempotencyKey` has it, and key.
_Key = tuple[str, str]
_Accepted = Row[str, str, UUID, bytes]


@dataclass(frozen=True, slots=True)
class AskedStatus:
    """Which notification: this one or, if there is none, the one that was accepted under this key."""

    id: UUID
    producer: str | None = None
    idempotency_key: str | None = None
    #: Digest of the message that is asked about, by which another one is told from it. None: whatever was accepted
    #: under the key.
    content: bytes | None = None
    #: Of a test key, whose idempotency keys are apart.
    is_test: bool = False

    @property
    def key(self) -> _Key | None:
        if self.producer is None or self.idempotency_key is None:
            return None
        return self.producer + TEST_KEYS * self.is_test, self.idempotency_key


class StatusLookup:
    """Thread-safe."""

    def __init__(self, engine: Engine, personal_data: PersonalData) -> None:
        self._engine = engine
        self._personal_data = personal_data

    def find(self, wanted: Collection[AskedStatus]) -> dict[AskedStatus, NotificationStatus | Fault]:
        """Those that are in the record; a fault where the key was accepted for another content. For some hundred
        at once.

        Raises:
            ServiceUnavailable: the database is away.
        """
        with transaction(self._engine, plans_by_values=True) as connection:
            found = _read(connection, {one.id for one in wanted})
            keys = {one.key for one in wanted if one.id not in found}
            accepted = _accepted_under(connection, {key for key in keys if key is not None})
            found |= _read(connection, {row.notification_id for row in accepted.values()} - found.keys())
        pairs = ((one, found.get(one.id) or self._by_key(one, accepted.get(one.key), found)) for one in wanted)
        return {one: status for one, status in pairs if status is not None}

    def _by_key(
        self,
        asked: AskedStatus,
        accepted: _Accepted | None,
        found: Mapping[UUID, NotificationStatus],
    ) -> NotificationStatus | Fault | None:
        if accepted is None:
            return None
        if asked.content is not None and not self._personal_data.is_same_digest(
            asked.content, bytes(accepted.body_hash)
        ):
            return another_content("idempotency_key")
        return found.get(accepted.notification_id)


def _read(connection: Connection, ids: set[UUID]) -> dict[UUID, NotificationStatus]:
    if not ids:
        return {}
    rows = connection.execute(select(*_COLUMNS).where(Notification.id.in_(ids)))
    return {row.id: from_row(NotificationStatus, row) for row in rows}


def _accepted_under(connection: Connection, keys: set[_Key]) -> dict[_Key | None, _Accepted]:
    if not keys:
        return {}
    row = IdempotencyKey
    query = select(row.producer, row.key, row.notification_id, row.body_hash)
    rows = connection.execute(query.where(tuple_(row.producer, row.key).in_(keys)))
    return {(row.producer, row.key): row for row in rows}
