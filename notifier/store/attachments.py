"""Files that producers upload, to be sent with their mails.

Crash points. A file and its use are committed by themselves: an upload whose answer was lost is uploaded again and
is the same file; a message names only what is there, because its row and the use of its files are one transaction,
and that one holds off the deletion of what is about to be used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Engine, TextClause, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID

from notifier.domain.errors import Fault, QuotaExceeded
from notifier.domain.message import MAX_MAIL_ATTACHMENTS
from notifier.store.clock import clock_of
from notifier.store.engine import transaction
from notifier.store.records import NewNotification
from notifier.store.schema.notifications import StoredAttachment

#: One that no message has named is deleted after this.
UNUSED_HOURS = 24
#: A smaller file counts as one of this size against its producer's quota: its row takes as much. Bytes.
LEAST_BYTES = 4096
#: Files of one round of deletion.
FORGET_PAGE = 500


@dataclass(frozen=True, slots=True)
class StorageUse:
    """What a producer's files take up."""

    producer: str
    files: int
    #: Each file counts as at least `LEAST_BYTES`.
    size: int


@dataclass(frozen=True, slots=True)
class NewAttachment:
    """A file on its way into the record."""

    producer: str
    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class AttachmentView:
    """A file, without what is in it."""

    id: UUID
    #: None, as the rest: it was deleted.
    name: str | None = None
    content_type: str | None = None
    #: Bytes.
    size: int | None = None
    #: Hexadecimal.
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class LoadedAttachment:
    """A file that is about to be sent."""

    name: str
    content_type: str
    content: bytes


class AttachmentRepository:
    """Thread-safe: it holds nothing but the engine. Every method raises `ServiceUnavailable`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, new: NewAttachment, *, quota: int | None = None) -> AttachmentView:
        """Keep a file. The same one again, of the same name and type, is the one that is there.

        Raises:
            QuotaExceeded: with it, its producer's files would take up more than `quota` bytes.
        """
        digest = hashlib.sha256(new.content).digest()
        values = {
            "producer": new.producer,
            "name": new.name,
            "content_type": new.content_type,
            "size": len(new.content),
            "sha256": digest,
            "content": new.content,
        }
        with transaction(self._engine) as connection:
            # The file itself crosses only if it is news.
            key = {name: value for name, value in values.items() if name not in ("size", "content")}
            found = connection.execute(_AGAIN, key).scalar()
            if found is None:
                if quota is not None:
                    _check_quota(connection, new, quota)
                found = connection.execute(_ADD, {"id": clock_of(connection).new_id(), **values}).scalar_one()
        return AttachmentView(found, new.name, new.content_type, len(new.content), digest.hex())

    def storage(self) -> list[StorageUse]:
        """What each producer's files take up, the most first."""
        with transaction(self._engine) as connection:
            return [StorageUse(*row) for row in connection.execute(_STORAGE, {"least": LEAST_BYTES})]

    def sizes(self, ids: Collection[UUID]) -> dict[UUID, int]:
        """Of those that are there. Bytes."""
        with transaction(self._engine) as connection:
            rows = connection.execute(_SIZES, {"ids": [str(value) for value in ids]})
            return {row.id: row.size for row in rows}

    def load(self, ids: Collection[UUID]) -> dict[UUID, LoadedAttachment]:
        """Those that are there."""
        with transaction(self._engine) as connection:
            rows = connection.execute(_LOAD, {"ids": [str(value) for value in ids]})
            return {row.id: LoadedAttachment(row.name, row.content_type, bytes(row.content)) for row in rows}

    def forget_old(self, *, days: int) -> int:
        """Delete what nobody used within a day, and what was last needed so many days ago, unless a notification
        that names it still waits. Returns how many."""
        total = 0
        while True:
            with transaction(self._engine) as connection:
                values = {"unused": UNUSED_HOURS, "days": days, "limit": FORGET_PAGE}
                deleted = connection.execute(_FORGET, values).rowcount
            total += deleted
            if deleted < FORGET_PAGE:
                return total


def _check_quota(connection: Connection, new: NewAttachment, quota: int) -> None:
    """Let pass a file that there is room for. Uploads of one producer go on one after the other from here on, to
    the end of their transactions: two at once would both find the same room."""
    connection.execute(_LOCK_PRODUCER, {"producer": new.producer})
    used = connection.execute(_USED, {"producer": new.producer, "least": LEAST_BYTES}).scalar_one()
    if used + max(len(new.content), LEAST_BYTES) > quota:
        raise QuotaExceeded(used, quota)


def views_of(connection: Connection, ids: Sequence[UUID]) -> list[AttachmentView]:
    """These, in their order; of those that were deleted, the id alone."""
    columns = (StoredAttachment.id, StoredAttachment.name, StoredAttachment.content_type, StoredAttachment.size)
    rows = connection.execute(select(*columns, StoredAttachment.sha256).where(StoredAttachment.id.in_(ids))).all()
    found = {
        row.id: AttachmentView(row.id, row.name, row.content_type, row.size, row.sha256.hex()) for row in rows
    }
    return [found.get(value, AttachmentView(value)) for value in ids]


def use_attachments(connection: Connection, notifications: Sequence[NewNotification]) -> dict[int, Fault]:
    """Note that these name their files; position → what is wrong with those that cannot have them.

    Within the transaction that accepts them. Without any file it costs no statement.
    """
    users = [new for new in notifications if new.message.attachments]
    if not users:
        return {}
    rows = [
        {
            "id": str(value),
            "producer": new.message.producer,
            "until": new.message.send_at and new.message.send_at.isoformat(),
        }
        for new in users
        for value in new.message.attachments or ()
    ]
    found = connection.execute(_USE, {"rows": json.dumps(rows)})
    sizes = {(row.producer, row.id): row.size for row in found}
    faults = {new.position: _fault(new, sizes) for new in users}
    return {position: fault for position, fault in faults.items() if fault is not None}


def _fault(new: NewNotification, sizes: Mapping[tuple[str, UUID], int]) -> Fault | None:
    total = 0
    for index, value in enumerate(new.message.attachments or ()):
        size = sizes.get((new.message.producer, value))
        if size is None:
            fix = "Upload the file with POST /v1/attachments, and send within a day"
            problem = "is no attachment of this producer, or it was deleted"
            return Fault(f"attachments.{index}", "unknown_attachment", problem, fix)
        total += size
    if total > MAX_MAIL_ATTACHMENTS:
        fix = f"Send at most {MAX_MAIL_ATTACHMENTS} bytes with one mail, or a link"
        return Fault("attachments", "attachments_too_large", f"are {total} bytes together", fix)
    return None


_IDS = bindparam("ids", type_=ARRAY(PG_UUID(as_uuid=False)))

_AGAIN: TextClause = text("""
UPDATE attachments SET uploaded_at = now()
WHERE producer = :producer AND sha256 = :sha256 AND name = :name AND content_type = :content_type
RETURNING id
""")

_LOCK_PRODUCER: TextClause = text("SELECT pg_advisory_xact_lock(hashtext('attachments'), hashtext(:producer))")

_USED: TextClause = text("""
SELECT coalesce(sum(greatest(size, :least)), 0)::bigint FROM attachments WHERE producer = :producer
""")

_STORAGE: TextClause = text("""
SELECT producer, count(*), sum(greatest(size, :least))::bigint AS size
FROM attachments GROUP BY producer ORDER BY size DESC, producer
""")

# Two uploads of the same file at once: the second waits for the first, and gets its id.
_ADD: TextClause = text("""
INSERT INTO attachments (id, producer, name, content_type, size, sha256, content)
VALUES (:id, :producer, :name, :content_type, :size, :sha256, :content)
ON CONFLICT (producer, sha256, name, content_type) DO UPDATE SET uploaded_at = now()
RETURNING id
""")

_SIZES: TextClause = text("SELECT id, size FROM attachments WHERE id = ANY(:ids)").bindparams(_IDS)

_LOAD: TextClause = text(
    "SELECT id, name, content_type, content FROM attachments WHERE id = ANY(:ids)"
).bindparams(_IDS)

# Locked, so that none is deleted before the message that names it is there. A file that goes with every mail is
# written once an hour, not with each batch: intakes would wait for each other.
_USE: TextClause = text("""
WITH wanted AS MATERIALIZED (
  SELECT producer, id, greatest(max(until), now()) AS until
  FROM json_to_recordset(CAST(:rows AS json)) AS r(producer text, id uuid, until timestamptz)
  GROUP BY producer, id
), found AS MATERIALIZED (
  SELECT a.id, a.producer, a.size, a.needed_until, w.until
  FROM wanted AS w JOIN attachments AS a ON a.id = w.id AND a.producer = w.producer
  ORDER BY a.id FOR KEY SHARE OF a
), used AS (
  UPDATE attachments AS a SET needed_until = greatest(a.needed_until, f.until)
  FROM found AS f
  WHERE a.id = f.id AND (f.needed_until IS NULL OR f.needed_until < f.until - interval '1 hour')
)
SELECT id, producer, size FROM found
""")

_FORGET: TextClause = text("""
WITH waiting AS MATERIALIZED (
  SELECT DISTINCT unnest(attachments) AS id FROM notifications
  WHERE status IN ('scheduled', 'queued', 'sending', 'retrying', 'unknown') AND attachments IS NOT NULL
), old AS (
  SELECT id FROM attachments
  WHERE CASE WHEN needed_until IS NULL THEN uploaded_at < now() - make_interval(hours => :unused)
             ELSE needed_until < now() - make_interval(days => :days)
               AND uploaded_at < now() - make_interval(hours => :unused) END
    AND id NOT IN (SELECT id FROM waiting)
  ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
)
DELETE FROM attachments AS a USING old WHERE a.id = old.id
""")
