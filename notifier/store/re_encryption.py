"""Old rows brought to where new ones are: sealed under the first key, and with the hash that searches go by.

Walks a table in the order of ids. A page is read without a lock; each row is then written only if what was read is
still there, and one that a worker has in hand, or is about to, is left for the next walk: a claim passes over a
row that is locked, and would come back to it minutes later. So it waits for nobody and nobody waits for it, any
number may run at once, and a run that ends in the middle is taken up by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Engine, TextClause, text

from notifier.domain.errors import CannotOpen
from notifier.domain.statuses import Channel
from notifier.security.encryption import Sealer
from notifier.store import binds
from notifier.store.engine import transaction
from notifier.store.personal_data import PersonalData
from notifier.store.sanitize import bytea

#: Rows that one statement looks at; those that are to be written come along, each up to a megabyte.
PAGE = 200
_OLDEST = 20


@dataclass(frozen=True, slots=True)
class Resealed:
    """How far a run is. Counts of rows."""

    #: Looked at.
    seen: int = 0
    #: Written anew.
    changed: int = 0
    #: Left alone: they are on their way just now. A later run takes them.
    busy: int = 0
    #: Left alone: they are sealed under a key that is missing.
    locked: int = 0
    #: The ids of the missing keys.
    missing_keys: tuple[str, ...] = ()
    #: Suppressions that went along with their recipient to another hash.
    suppressions: int = 0


class Resealing:
    """Thread-safe: it holds nothing but engine and keys. Every method raises `ServiceUnavailable`."""

    def __init__(self, engine: Engine, personal_data: PersonalData) -> None:
        self._engine = engine
        self._personal_data = personal_data

    def estimate(self) -> int:
        """About how many rows there are to look at, from the planner's statistics."""
        with transaction(self._engine) as connection:
            return int(connection.execute(_ESTIMATE).scalar_one())

    def is_wanted(self) -> bool:
        """Whether a run would find something among the oldest notifications: it is they that wait for one."""
        values = {**self._wanted(rehash=False), "after": UUID(int=0), "limit": _OLDEST}
        with transaction(self._engine) as connection:
            return any(row.is_wanted for row in connection.execute(_NOTIFICATIONS, values))

    def run(self, *, rehash: bool = False, progress: Callable[[Resealed], None] | None = None) -> Resealed:
        """Walk the tables. `rehash`: make every hash anew, after another NOTIFIER_HASH_KEY was set."""
        done = Resealed()
        for done in self._walk(rehash=rehash):
            if progress:
                progress(done)
        return done

    def _walk(self, *, rehash: bool) -> Iterator[Resealed]:
        done = Resealed()
        for select, update, work in (
            (_NOTIFICATIONS, _UPDATE_NOTIFICATIONS, self._notification),
            (_REJECTED, _UPDATE_REJECTED, self._rejected),
            (_UNREAD, _UPDATE_UNREAD, self._unread),
        ):
            after = UUID(int=0)
            while True:
                with transaction(self._engine) as connection:
                    page = connection.execute(select, {**self._wanted(rehash), "after": after}).all()
                if not page:
                    break
                done, rows = self._page(done, [row for row in page if row.is_wanted or row.is_doubtful], work)
                if rows:
                    moved = [row for row in rows if row.get("earlier_hash")]
                    with transaction(self._engine) as connection:
                        count = connection.execute(update, {"rows": to_json(rows).decode()}).rowcount
                        along = 0
                        if moved:
                            along = connection.execute(
                                _MOVE_SUPPRESSIONS, {"rows": to_json(moved).decode()}
                            ).rowcount
                    done = replace(
                        done,
                        changed=done.changed + count,
                        busy=done.busy + len(rows) - count,
                        suppressions=done.suppressions + along,
                    )
                done = replace(done, seen=done.seen + len(page))
                after = page[-1].id
                yield done

    def _wanted(self, rehash: bool) -> dict[str, Any]:
        sealer = self._personal_data.sealer
        return {"limit": PAGE, "is_on": sealer.is_on, "header": sealer.header, "rehash": rehash}

    def _page(
        self, done: Resealed, page: list[Any], work: Callable[[Any], dict[str, Any]]
    ) -> tuple[Resealed, list[dict[str, Any]]]:
        rows, missing = [], set(done.missing_keys)
        locked = done.locked
        for row in page:
            try:
                new = work(row)
                if row.is_wanted or new["earlier_hash"]:
                    rows.append(new)
            except CannotOpen as error:
                missing.add(error.key_id)
                locked += 1
        return replace(done, locked=locked, missing_keys=tuple(sorted(missing))), rows

    def _notification(self, row: Any) -> dict[str, Any]:
        personal_data, names, channel = self._personal_data, row.secret_names or (), Channel(row.channel)
        person = personal_data.open(row)
        new: dict[str, Any] = {"secrets": None, "earlier_hash": None}
        # Known by another spelling until now; under another NOTIFIER_HASH_KEY it is by none of them.
        _, *earlier = personal_data.hash_key.recipient_forms(channel, person.recipient)
        if row.address_hash in earlier:
            new["earlier_hash"] = bytea(row.address_hash)
        elif not row.is_wanted:
            return new
        new |= personal_data.put_away(row.id, channel, person, names if row.secrets is None else ())
        if row.secrets is not None:
            new["secrets"] = bytea(personal_data.reseal_secrets(row.id, row.secrets))
        return new | {
            "id": str(row.id),
            "old_recipient": row.recipient,
            "old_sealed": bytea(row.sealed),
            "old_secrets": bytea(row.secrets),
            "old_names": row.secret_names,
        }

    def _rejected(self, row: Any) -> dict[str, Any]:
        body, headers = self._personal_data.open_rejected(row.id, row.body, row.headers, row.sealed)
        new = self._personal_data.put_away_rejected(row.id, body, headers)
        return {
            "id": str(row.id),
            "sealed": bytea(new["sealed"]),
            "old_sealed": bytea(row.sealed),
            "earlier_hash": None,
        }

    def _unread(self, row: Any) -> dict[str, Any]:
        content = self._personal_data.open_bounce(row.id, row.content, row.sealed)
        new = self._personal_data.put_away_bounce(row.id, content)
        return {"id": str(row.id), "sealed": bytea(new["sealed"]), "old_sealed": bytea(row.sealed)}


def unknown_keys(engine: Engine, sealer: Sealer) -> list[str]:
    """Ids of keys that something not yet sent is sealed under, and that the sealer has not."""
    with transaction(engine) as connection:
        found = {bytes(row.header)[2:].decode("ascii", "replace") for row in connection.execute(_LIVE_KEYS)}
    return sorted(found - set(sealer.key_ids))


_AFTER = binds.uuid("after")

# Of what has not ended, through the index of that; the second byte is the length of the key's id.
_LIVE_KEYS: TextClause = text("""
SELECT DISTINCT substr(sealed, 1, 2 + get_byte(sealed, 1)) AS header FROM notifications
WHERE status IN ('scheduled', 'queued', 'sending', 'retrying', 'unknown') AND sealed IS NOT NULL
""")

_ESTIMATE: TextClause = text("""
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class AS c
WHERE c.oid = 'rejected_messages'::regclass
  OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'notifications'::regclass)
""")

# The page is cut before it is asked what is wanted: a statement looks at so many rows and no more, however few of
# them there is something to do for. What is redacted has nothing to seal.
_NOTIFICATIONS: TextClause = text("""
WITH page AS MATERIALIZED (
  SELECT id, (recipient IS NOT NULL OR sealed IS NOT NULL) AND (
    :rehash OR address_hash IS NULL OR (:is_on AND (
      sealed IS NULL OR substr(sealed, 1, length(:header)) <> :header
      OR (secrets IS NOT NULL AND substr(secrets, 1, length(:header)) <> :header)))) AS is_wanted,
    -- Its recipient may have been known by another spelling: an address that is sealed, or not all plain.
    channel = 'email' AND (sealed IS NOT NULL OR address ~ '[^ -~]|xn--|[.]$') AS is_doubtful
  FROM notifications WHERE id > :after ORDER BY id LIMIT :limit
)
SELECT page.id, page.is_wanted, page.is_doubtful, n.channel, n.recipient, n.context, n.sealed, n.secrets,
  n.secret_names, n.address_hash
FROM page LEFT JOIN notifications AS n ON n.id = page.id AND (page.is_wanted OR page.is_doubtful)
ORDER BY page.id
""").bindparams(_AFTER)

# A row that is sent meanwhile has lost its secrets: they must not come back.
_UPDATE_NOTIFICATIONS: TextClause = text("""
WITH given AS MATERIALIZED (
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
    id uuid, recipient text, address text, address_hash bytea, context jsonb, sealed bytea, secrets bytea,
    old_recipient text, old_sealed bytea, old_secrets bytea, old_names text[])
), free AS MATERIALIZED (
  SELECT n.id FROM given JOIN notifications AS n ON n.id = given.id
    AND CASE WHEN n.status NOT IN ('queued', 'sending') THEN true END
  ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
)
UPDATE notifications AS n SET recipient = r.recipient, address = r.address, address_hash = r.address_hash,
  context = r.context, sealed = r.sealed, secrets = r.secrets
FROM given AS r JOIN free ON free.id = r.id
WHERE n.id = r.id AND n.recipient IS NOT DISTINCT FROM r.old_recipient
  AND n.sealed IS NOT DISTINCT FROM r.old_sealed AND n.secrets IS NOT DISTINCT FROM r.old_secrets
  AND n.secret_names IS NOT DISTINCT FROM r.old_names
""")

# A suppression has no address, only its hash: it goes where a notification to the same recipient went. One that is
# there already stays, and the earlier one goes on to hold too: look-ups know both.
_MOVE_SUPPRESSIONS: TextClause = text("""
UPDATE suppressions AS s SET address_hash = r.address_hash
FROM (SELECT DISTINCT address_hash, earlier_hash FROM json_to_recordset(CAST(:rows AS json)) AS r(
  address_hash bytea, earlier_hash bytea)) AS r
WHERE s.address_hash = r.earlier_hash AND NOT EXISTS (
  SELECT FROM suppressions AS o WHERE o.address_hash = r.address_hash AND o.scope = s.scope AND o.reason = s.reason
  AND o.lifted_at IS NULL AND s.lifted_at IS NULL)
""")

_REJECTED: TextClause = text("""
WITH page AS MATERIALIZED (
  SELECT id, :is_on AND (sealed IS NULL OR substr(sealed, 1, length(:header)) <> :header) AS is_wanted
  FROM rejected_messages WHERE id > :after ORDER BY id LIMIT :limit
)
SELECT page.id, page.is_wanted, false AS is_doubtful, m.body, m.headers, m.sealed
FROM page LEFT JOIN rejected_messages AS m ON m.id = page.id AND page.is_wanted
ORDER BY page.id
""").bindparams(_AFTER)

_UPDATE_REJECTED: TextClause = text("""
WITH given AS MATERIALIZED (
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, sealed bytea, old_sealed bytea)
), free AS MATERIALIZED (
  SELECT m.id FROM given JOIN rejected_messages AS m ON m.id = given.id ORDER BY m.id FOR UPDATE OF m SKIP LOCKED
)
UPDATE rejected_messages AS m SET body = '', headers = '{}', sealed = r.sealed
FROM given AS r JOIN free ON free.id = r.id
WHERE m.id = r.id AND m.sealed IS NOT DISTINCT FROM r.old_sealed
""")

_UNREAD: TextClause = text("""
WITH page AS MATERIALIZED (
  SELECT id, :is_on AND (sealed IS NULL OR substr(sealed, 1, length(:header)) <> :header) AS is_wanted
  FROM unread_bounces WHERE id > :after ORDER BY id LIMIT :limit
)
SELECT page.id, page.is_wanted, u.content, u.sealed
FROM page LEFT JOIN unread_bounces AS u ON u.id = page.id AND page.is_wanted
ORDER BY page.id
""").bindparams(_AFTER)

_UPDATE_UNREAD: TextClause = text("""
WITH given AS MATERIALIZED (
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, sealed bytea, old_sealed bytea)
), free AS MATERIALIZED (
  SELECT u.id FROM given JOIN unread_bounces AS u ON u.id = given.id ORDER BY u.id FOR UPDATE OF u SKIP LOCKED
)
UPDATE unread_bounces AS u SET content = '', sealed = r.sealed
FROM given AS r JOIN free ON free.id = r.id
WHERE u.id = r.id AND u.sealed IS NOT DISTINCT FROM r.old_sealed
""")
