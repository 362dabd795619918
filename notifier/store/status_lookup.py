"""The status of notifications, for producers who ask: a few columns of many notifications in one read."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, select, tuple_

from notifier.domain.errors import Fault
from notifier.domain.notification_status import NotificationStatus
from notifier.store.acceptance import another_content, id_in_use
from notifier.store.engine import transaction
from notifier.store.personal_data import PersonalData
from notifier.store.records import TEST_KEYS
from notifier.store.rows import columns_of, from_row
from notifier.store.schema.notifications import IdempotencyKey, Notification

_COLUMNS = columns_of(NotificationStatus, Notification)

#: The producer, in the form of `IdempotencyKey`, and the key.
_Key = tuple[str, str]
_Accepted = Row[str, str, UUID, bytes]


@dataclass(frozen=True, slots=True)
class AskedStatus:
    """Asks for the notification with this id or, if there is none, the one accepted under this key."""

    id: UUID
    producer: str | None = None
    idempotency_key: str | None = None
    #: Digest of the message that is asked about, which tells it from another message. None: return whatever was
    #: accepted under the id or the key.
    content: bytes | None = None
    #: The caller uses a test key; tests have idempotency keys of their own.
    is_test: bool = False

    @property
    def key(self) -> _Key | None:
        if self.producer is None or self.idempotency_key is None:
            return None
        return self.producer + TEST_KEYS * self.is_test, self.idempotency_key

    def is_to_be_compared(self, found: Container[UUID]) -> bool:
        """Whether the row of an idempotency key is needed for the answer."""
        return self.id not in found or self.content is not None


@dataclass(frozen=True, slots=True)
class FoundStatus:
    """The status of the notification that has the id or key that was asked for."""

    status: NotificationStatus
    #: Why it does not belong to the message that was asked about. None: it may. The fault tells whether a guessed
    #: content is right, so show it only to those who may see the notification.
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    status: NotificationStatus
    idempotency_key: str | None

    @property
    def key(self) -> _Key:
        """The key that it was accepted under."""
        return self.status.producer + TEST_KEYS * self.status.is_test, self.idempotency_key or str(self.status.id)


class StatusLookup:
    """Looks up statuses. Thread-safe."""

    def __init__(self, engine: Engine, personal_data: PersonalData) -> None:
        self._engine = engine
        self._personal_data = personal_data

    def find(self, wanted: Collection[AskedStatus]) -> dict[AskedStatus, FoundStatus]:
        """The notifications that are in the record, whoever sent them. Meant for some hundreds at a time.

        Raises:
            ServiceUnavailable: the database is away.
        """
        with transaction(self._engine, plans_by_values=True) as connection:
            found = _read(connection, {one.id for one in wanted})
            keys = {
                found[one.id].key if one.id in found else one.key for one in wanted if one.is_to_be_compared(found)
            }
            accepted = _accepted_under(connection, {key for key in keys if key is not None})
            found |= _read(connection, {row.notification_id for row in accepted.values()} - found.keys())
        pairs = ((one, self._answer(one, found, accepted)) for one in wanted)
        return {one: answer for one, answer in pairs if answer is not None}

    def _answer(
        self, asked: AskedStatus, found: Mapping[UUID, _Found], accepted: Mapping[_Key | None, _Accepted]
    ) -> FoundStatus | None:
        by_id = found.get(asked.id)
        row = accepted.get(by_id.key if by_id else asked.key)
        # Keys are forgotten after a while. Then what the id finds is taken to be what was asked about.
        is_other = row is not None and asked.content is not None and not self._is_content(asked.content, row)
        if by_id:
            return FoundStatus(by_id.status, _why_other(asked, by_id) if is_other else None)
        if row is None or row.notification_id not in found:
            return None
        by_key = found[row.notification_id]
        return FoundStatus(by_key.status, another_content("idempotency_key") if is_other else None)

    def _is_content(self, digest: bytes, row: _Accepted) -> bool:
        return self._personal_data.is_same_digest(digest, bytes(row.body_hash))


def _why_other(asked: AskedStatus, by_id: _Found) -> Fault:
    if asked.idempotency_key is None:
        return another_content("id")
    return another_content("idempotency_key") if asked.idempotency_key == by_id.idempotency_key else id_in_use()


def _read(connection: Connection, ids: set[UUID]) -> dict[UUID, _Found]:
    if not ids:
        return {}
    rows = connection.execute(select(*_COLUMNS, Notification.idempotency_key).where(Notification.id.in_(ids)))
    return {row.id: _Found(from_row(NotificationStatus, row), row.idempotency_key) for row in rows}


def _accepted_under(connection: Connection, keys: set[_Key]) -> dict[_Key | None, _Accepted]:
    if not keys:
        return {}
    row = IdempotencyKey
    query = select(row.producer, row.key, row.notification_id, row.body_hash)
    rows = connection.execute(query.where(tuple_(row.producer, row.key).in_(keys)))
    return {(row.producer, row.key): row for row in rows}
