"""The keys of the HTTP API: grants, times, and the hash of the secret."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, func, insert, or_, select, text, update

from notifier.domain.errors import NotFound
from notifier.store.recurring import IS_RUNNING
from notifier.store.repository import Repository
from notifier.store.rows import columns_of, from_row
from notifier.store.schema.operations import ApiKey

#: Minimum time between two writes of `last_used_at`, so that a busy key costs no write for each request. Seconds.
TOUCH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class KeyView:
    id: str
    name: str
    producer: str | None
    is_test: bool
    scopes: list[str]
    channels: list[str] | None
    templates: list[str] | None
    rate_per_second: float | None
    created_at: datetime
    created_by: str
    rotated_from: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def state(self, now: datetime) -> str:
        """ "valid", "expired" or "revoked"."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


@dataclass(frozen=True, slots=True)
class StoredKey:
    view: KeyView
    secret_hash: bytes
    #: Neither revoked nor expired, by the database's clock.
    is_valid: bool
    #: `last_used_at` is old enough to be written again.
    is_stale: bool


@dataclass(frozen=True, slots=True)
class PlanLeft:
    """A recurring notification that goes on without the key."""

    id: UUID
    name: str
    producer: str
    #: The operator records say that this key made or changed it.
    is_by_key: bool


_VIEW = columns_of(KeyView, ApiKey)


class ApiKeyRepository(Repository):
    """Reads and writes keys. It caches nothing, so its answers are true at that moment."""

    def add(self, values: dict[str, Any]) -> None:
        """`values` are columns of `api_keys`."""
        self._execute(insert(ApiKey).values(**values))

    def find(self, key_id: str) -> StoredKey | None:
        """The key with this id, valid or not."""
        is_valid = ApiKey.revoked_at.is_(None) & or_(
            ApiKey.expires_at.is_(None), ApiKey.expires_at > func.clock_timestamp()
        )
        is_stale = or_(
            ApiKey.last_used_at.is_(None),
            ApiKey.last_used_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, TOUCH_SECONDS),
        )
        query: Any = select(
            *_VIEW, ApiKey.secret_hash, is_valid.label("is_valid"), is_stale.label("is_stale")
        ).where(ApiKey.id == key_id)
        rows = self._rows(query, is_one_statement=True)
        return from_row(StoredKey, rows[0], view=from_row(KeyView, rows[0])) if rows else None

    def touch(self, key_id: str) -> None:
        """Record that the key was used now, unless a use was recorded within the last minute."""
        self._execute(_TOUCH, {"id": key_id, "seconds": TOUCH_SECONDS})

    def all(self) -> list[KeyView]:
        """All keys, newest first."""
        return self._records(KeyView, select(*_VIEW).order_by(ApiKey.created_at.desc()))

    def view(self, key_id: str) -> KeyView:
        """Return the key. Raises `NotFound`."""
        found = self.find(key_id)
        if found is None:
            raise NotFound(f"no key has the id {key_id!r}; `notifier keys list` shows the keys")
        return found.view

    def revoke(self, key_id: str) -> bool:
        """Revoke the key. Returns False if it was revoked before."""
        query = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        return bool(self._rows(query.values(revoked_at=func.now()).returning(ApiKey.id)))

    def plans_left(self, view: KeyView, operator: str) -> list[PlanLeft]:
        """Recurring notifications that go on: those of the key's producer, and others that the key changed. The
        key's own come first. `operator`: the name of the key in the operator records."""
        values = {"producer": view.producer, "is_test": view.is_test, "operator": operator}
        return self._records(PlanLeft, _PLANS_LEFT, values)

    def expire_in(self, key_id: str, seconds: float) -> None:
        """Let the key expire after `seconds`, unless it expires earlier anyway."""
        self._execute(_EXPIRE, {"id": key_id, "seconds": seconds})


_TOUCH: TextClause = text("""
UPDATE api_keys SET last_used_at = now()
WHERE id = :id AND (last_used_at IS NULL OR last_used_at < now() - make_interval(secs => :seconds))
""")

# The record of an addition is written just before it, so it has the name and not the id.
_PLANS_LEFT: TextClause = text(f"""
WITH by_key AS MATERIALIZED (
  SELECT action, at, selection FROM operator_records
  WHERE operator = :operator AND starts_with(action, 'recurring_')
), going AS (
  SELECT n.id, n.name, n.producer, n.is_test, EXISTS (
    SELECT FROM by_key AS r WHERE r.selection->>'id' = n.id::text
      OR (r.action = 'recurring_add' AND r.selection->>'name' = n.name AND r.selection->>'producer' = n.producer
        AND r.at BETWEEN n.created_at - interval '10 minutes' AND n.created_at)) AS is_by_key
  FROM recurring_notifications AS n WHERE n.paused_at IS NULL AND (n.next_at IS NOT NULL OR {IS_RUNNING})
)
SELECT id, name, producer, is_by_key FROM going
WHERE is_by_key OR (producer = CAST(:producer AS text) AND is_test = :is_test)
ORDER BY is_by_key DESC, name, id
""")  # noqa: S608 - a constant

_EXPIRE: TextClause = text("""
UPDATE api_keys SET expires_at = least(expires_at, now() + make_interval(secs => :seconds)) WHERE id = :id
""")
