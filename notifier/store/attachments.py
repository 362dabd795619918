"""Files that producers upload, to be sent with their mails.

Crash points. An upload whose answer was lost is repeated and finds the same file. A message can only name files
that exist: its row is written in the transaction that marks its files as used and locks them against deletion.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, select, text

from notifier.domain.errors import Fault, QuotaExceeded
from notifier.domain.message import MAX_MAIL_ATTACHMENTS
from notifier.store import binds
from notifier.store.advisory_locks import lock_uploads
from notifier.store.clock import clock_of
from notifier.store.engine import transaction
from notifier.store.notification_rules import LIVE
from notifier.store.repository import Repository
from notifier.store.rows import columns_of, from_row
from notifier.store.schema.notifications import StoredAttachment

if TYPE_CHECKING:
    from notifier.store.records import NewNotification

#: A file that no message has named is deleted after this.
UNUSED_HOURS = 24
#: A smaller file counts as this much against its producer's quota, because its row takes as much room. Bytes.
LEAST_BYTES = 4096
#: Maximum number of files that one transaction deletes.
FORGET_PAGE = 500


@dataclass(frozen=True, slots=True)
class StorageUse:
    producer: str
    files: int
    #: Each file counts as at least `LEAST_BYTES`.
    size: int


@dataclass(frozen=True, slots=True)
class NewAttachment:
    #: For a test key: the producer's name followed by `records.TEST_KEYS`.
    producer: str
    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class AttachmentView:
    """A file without its content."""

    id: UUID
    #: None, like the fields that follow: the file was deleted.
    name: str | None = None
    content_type: str | None = None
    #: Bytes.
    size: int | None = None
    #: Hexadecimal.
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class LoadedAttachment:
    name: str
    content_type: str
    content: bytes


class AttachmentRepository(Repository):
    def add(self, new: NewAttachment, *, quota: int | None = None) -> AttachmentView:
        """Store a file. If the producer has one with the same content, name and type, that one is returned.

        Raises:
            QuotaExceeded: with this file, the producer's files would take up more than `quota` bytes.
        """
        digest, size = hashlib.sha256(new.content).digest(), len(new.content)
        key = {"producer": new.producer, "name": new.name, "content_type": new.content_type, "sha256": digest}
        with transaction(self._engine) as connection:
            # The content is sent to the database only if it is new there.
            found = connection.execute(_AGAIN, key).scalar()
            if found is None:
                if quota is not None:
                    _check_quota(connection, new, quota)
                values = {"id": clock_of(connection).new_id(), "size": size, "content": new.content, **key}
                found = connection.execute(_ADD, values).scalar_one()
        return AttachmentView(found, new.name, new.content_type, size, digest.hex())

    def storage(self) -> list[StorageUse]:
        """The storage that each producer uses, largest first."""
        return self._records(StorageUse, _STORAGE, {"least": LEAST_BYTES})

    def sizes(self, ids: Collection[UUID]) -> dict[UUID, int]:
        """Sizes of those files that exist, in bytes."""
        return {row.id: row.size for row in self._rows(_SIZES, {"ids": list(ids)})}

    def load(self, ids: Collection[UUID]) -> dict[UUID, LoadedAttachment]:
        """Those files that exist, with their content."""
        return {row.id: from_row(LoadedAttachment, row) for row in self._rows(_LOAD, {"ids": list(ids)})}

    def forget_old(self, *, days: int) -> int:
        """Delete files that no message named within a day, and files last needed `days` ago, unless a waiting
        notification names them. A file that is to be needed later, but is named by none that waits, is needed no
        more from now on. Returns how many were deleted."""
        with transaction(self._engine) as connection:
            ids = list(connection.execute(_LOCK_UNNEEDED, {"limit": FORGET_PAGE}).scalars())
            if ids:
                connection.execute(_END_NEED, {"ids": ids})
        return self._execute_in_pages(_FORGET, {"unused": UNUSED_HOURS, "days": days}, FORGET_PAGE)


def _check_quota(connection: Connection, new: NewAttachment, quota: int) -> None:
    """Raise `QuotaExceeded` if there is no room. From here to the end of their transactions the uploads of a
    producer run one after the other; otherwise two at the same time would both find the same room."""
    lock_uploads(connection, new.producer)
    used = connection.execute(_USED, {"producer": new.producer, "least": LEAST_BYTES}).scalar_one()
    if used + max(len(new.content), LEAST_BYTES) > quota:
        raise QuotaExceeded(used, quota)


def views_of(connection: Connection, ids: Sequence[UUID]) -> list[AttachmentView]:
    """The files in the order of the ids; of a deleted file, only the id."""
    query: Any = select(*columns_of(AttachmentView, StoredAttachment)).where(StoredAttachment.id.in_(ids))
    rows = connection.execute(query)
    found = {row.id: from_row(AttachmentView, row, sha256=row.sha256.hex()) for row in rows}
    return [found.get(value, AttachmentView(value)) for value in ids]


def use_attachments(connection: Connection, notifications: Sequence[NewNotification]) -> dict[int, Fault]:
    """Mark the files of these notifications as used, within the transaction that accepts them. Returns, by
    position, the faults of messages whose files are missing or too large. Without files it costs no statement."""
    users = [new for new in notifications if new.message.attachments]
    if not users:
        return {}
    rows = [
        {
            "id": str(value),
            "producer": new.message.producer,
            "owner": new.key_owner,
            "until": new.message.send_at and new.message.send_at.isoformat(),
        }
        for new in users
        for value in new.message.attachments or ()
    ]
    found = connection.execute(_USE, {"rows": json.dumps(rows)})
    sizes = {(row.owner, row.id): row.size for row in found}
    faults = {new.position: _fault(new, sizes) for new in users}
    return {position: fault for position, fault in faults.items() if fault is not None}


def _fault(new: NewNotification, sizes: Mapping[tuple[str, UUID], int]) -> Fault | None:
    total = 0
    for index, value in enumerate(new.message.attachments or ()):
        size = sizes.get((new.key_owner, value))
        if size is None:
            fix = "Upload the file with POST /v1/attachments, and send within a day"
            problem = "is not an attachment of this producer, or it was deleted"
            return Fault(f"attachments.{index}", "unknown_attachment", problem, fix)
        total += size
    if total > MAX_MAIL_ATTACHMENTS:
        fix = f"Send at most {MAX_MAIL_ATTACHMENTS} bytes with one mail, or a link"
        return Fault("attachments", "attachments_too_large", f"are {total} bytes together", fix)
    return None


_AGAIN: TextClause = text("""
UPDATE attachments SET uploaded_at = now()
WHERE producer = :producer AND sha256 = :sha256 AND name = :name AND content_type = :content_type
RETURNING id
""")

_USED: TextClause = text("""
SELECT coalesce(sum(greatest(size, :least)), 0)::bigint FROM attachments WHERE producer = :producer
""")

_STORAGE: TextClause = text("""
SELECT producer, count(*) AS files, sum(greatest(size, :least))::bigint AS size
FROM attachments GROUP BY producer ORDER BY size DESC, producer
""")

# If the same file is uploaded twice at the same time, the second upload waits for the first and gets its id.
_ADD: TextClause = text("""
INSERT INTO attachments (id, producer, name, content_type, size, sha256, content)
VALUES (:id, :producer, :name, :content_type, :size, :sha256, :content)
ON CONFLICT (producer, sha256, name, content_type) DO UPDATE SET uploaded_at = now()
RETURNING id
""")

_SIZES: TextClause = text("SELECT id, size FROM attachments WHERE id = ANY(:ids)").bindparams(binds.IDS)

_LOAD: TextClause = text(
    "SELECT id, name, content_type, content FROM attachments WHERE id = ANY(:ids)"
).bindparams(binds.IDS)

# Files are locked, so that none is deleted before the message that names it is committed. A file that goes with
# every mail is written at most once an hour; otherwise intakes would wait for each other at each batch. Files of
# test keys have an owner of their own. A test may also name live files; a live message may not name files of
# tests.
_USE: TextClause = text("""
WITH wanted AS MATERIALIZED (
  SELECT producer, owner, id, greatest(max(until), now()) AS until
  FROM json_to_recordset(CAST(:rows AS json)) AS r(producer text, owner text, id uuid, until timestamptz)
  GROUP BY producer, owner, id
), found AS MATERIALIZED (
  SELECT a.id, w.owner, a.size, a.needed_until, w.until
  FROM wanted AS w JOIN attachments AS a ON a.id = w.id AND a.producer IN (w.producer, w.owner)
  ORDER BY a.id FOR KEY SHARE OF a
), used AS (
  UPDATE attachments AS a SET needed_until = greatest(a.needed_until, f.until)
  FROM (SELECT id, needed_until, max(until) AS until FROM found GROUP BY id, needed_until) AS f
  WHERE a.id = f.id AND (f.needed_until IS NULL OR f.needed_until < f.until - interval '1 hour')
)
SELECT id, owner, size FROM found
""")

_WAITING = f"""
WITH waiting AS MATERIALIZED (
  SELECT DISTINCT unnest(m.attachments) AS id FROM states AS n JOIN messages AS m ON m.id = n.id
  WHERE {LIVE} AND m.attachments IS NOT NULL
)"""  # noqa: S608 - a constant

# Those that named it were cancelled, have expired, or were sent before their time. Who names it now is waited for
# by the lock, and seen by the next statement.
_LOCK_UNNEEDED: TextClause = text(f"""
{_WAITING}
SELECT id FROM attachments WHERE needed_until > now() AND id NOT IN (SELECT id FROM waiting)
ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - a constant

_END_NEED: TextClause = text(f"""
{_WAITING}
UPDATE attachments SET needed_until = now() WHERE id = ANY(:ids) AND id NOT IN (SELECT id FROM waiting)
""").bindparams(binds.IDS)  # noqa: S608 - a constant

_FORGET: TextClause = text(f"""
{_WAITING}, old AS (
  SELECT id FROM attachments
  WHERE CASE WHEN needed_until IS NULL THEN uploaded_at < now() - make_interval(hours => :unused)
             ELSE needed_until < now() - make_interval(days => :days)
               AND uploaded_at < now() - make_interval(hours => :unused) END
    AND id NOT IN (SELECT id FROM waiting)
  ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
)
DELETE FROM attachments AS a USING old WHERE a.id = old.id
""")  # noqa: S608 - a constant
