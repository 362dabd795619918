"""Re-encryption: seals old rows under the first key, and gives them the hash that searches use today.

It walks a table in the order of ids. A page is read without a lock, and a row is written only if it has not
changed since. Rows that a worker has in hand, or is about to claim, are left for the next walk: a claim passes
over a locked row, and would come back to it only minutes later. So nobody waits for anybody. Any number may run at
the same time, and the next run goes on where the last one ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, TextClause, text

from notifier.domain.errors import CannotOpen
from notifier.domain.statuses import Channel
from notifier.security.encryption import Sealer
from notifier.store import binds
from notifier.store.engine import transaction
from notifier.store.hash_keys import HashKeyRepository
from notifier.store.ledger_rows import as_json
from notifier.store.notification_rules import LIVE
from notifier.store.personal_data import PersonalData
from notifier.store.repository import Repository
from notifier.store.sanitize import bytea

#: Rows that one statement looks at. It returns those to be written, each up to a megabyte.
PAGE = 200
_OLDEST = 20


@dataclass(frozen=True, slots=True)
class Resealed:
    """The progress of a run, in numbers of rows."""

    seen: int = 0
    changed: int = 0
    #: Left for a later run, because they are being sent at the moment.
    busy: int = 0
    #: Left alone, because they are sealed under a key that is missing.
    locked: int = 0
    #: Ids of the missing keys.
    missing_keys: tuple[str, ...] = ()
    #: Suppressions that followed their recipient to a new hash.
    suppressions: int = 0


class Resealing(Repository):
    def __init__(self, engine: Engine, personal_data: PersonalData) -> None:
        super().__init__(engine)
        self._personal_data = personal_data

    def estimate(self) -> int:
        """A rough number of rows to look at, from the planner's statistics."""
        return int(self._scalar(_ESTIMATE))

    def is_wanted(self) -> bool:
        """Whether a run would change any of the oldest notifications, which have waited for one the longest."""
        values = {**self._wanted(rehash=False), "after": UUID(int=0), "limit": _OLDEST}
        return any(row.is_wanted for row in self._rows(_NOTIFICATIONS, values))

    def run(self, *, rehash: bool = False, progress: Callable[[Resealed], None] | None = None) -> Resealed:
        """Walk the tables. `rehash`: renew every hash, after NOTIFIER_HASH_KEY has changed."""
        done = Resealed()
        for select, update, work in (
            (_NOTIFICATIONS, _UPDATE_NOTIFICATIONS, self._notification),
            (_REJECTED, _UPDATE_REJECTED, self._rejected),
            (_UNREAD, _UPDATE_UNREAD, self._unread),
            (_PLANS, _UPDATE_PLANS, self._plan),
            (_LISTED, _UPDATE_LISTED, self._listed),
        ):
            after = UUID(int=0)
            while page := self._rows(select, {**self._wanted(rehash), "after": after}):
                done, rows = self._page(done, [row for row in page if row.is_wanted or row.is_doubtful], work)
                if rows:
                    moved = [row for row in rows if row.get("earlier_hash")]
                    with transaction(self._engine) as connection:
                        count = connection.execute(update, {"rows": as_json(rows)}).rowcount
                        along = self._move_suppressions(connection, moved) if moved else 0
                    done = replace(
                        done,
                        changed=done.changed + count,
                        busy=done.busy + len(rows) - count,
                        suppressions=done.suppressions + along,
                    )
                done = replace(done, seen=done.seen + len(page))
                after = page[-1].id
                if progress:
                    progress(done)
        if rehash and not done.busy and not done.locked:
            HashKeyRepository(self._engine).forget_others(self._personal_data.hash_key.fingerprint)
        return done

    def _move_suppressions(self, connection: Connection, moved: list[dict[str, Any]]) -> int:
        """Give suppressions the new hashes of their recipients. Returns how many have moved."""
        values = {"rows": as_json(moved), "hash_key": self._personal_data.hash_key.fingerprint}
        count = connection.execute(_MOVE_SUPPRESSIONS, values).rowcount
        connection.execute(_MAKE_ROOM, values)
        return count + len(connection.execute(_REPLACE_SUPPRESSIONS, values).all())

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
                if row.is_wanted or new.get("earlier_hash"):
                    rows.append(new)
            except CannotOpen as error:
                missing.add(error.key_id)
                locked += 1
        return replace(done, locked=locked, missing_keys=tuple(sorted(missing))), rows

    def _notification(self, row: Any) -> dict[str, Any]:
        personal_data, names, channel = self._personal_data, row.secret_names or (), Channel(row.channel)
        person = personal_data.open(row)
        new: dict[str, Any] = {"secrets": None, "earlier_hash": None}
        # Until now it may have had the hash of another spelling, or one under another NOTIFIER_HASH_KEY. The
        # second is only corrected if the row is written anyway.
        current, *earlier = personal_data.hash_key.recipient_forms(channel, person.recipient)
        if row.address_hash in earlier or (row.is_wanted and row.address_hash not in (None, current)):
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
        return _resealed(row, self._personal_data.put_away_rejected(row.id, body, headers))

    def _unread(self, row: Any) -> dict[str, Any]:
        content = self._personal_data.open_bounce(row.id, row.content, row.sealed)
        return _resealed(row, self._personal_data.put_away_bounce(row.id, content))

    def _plan(self, row: Any) -> dict[str, Any]:
        person = self._personal_data.open(row)
        new = self._personal_data.put_away(row.id, Channel(row.channel), person)
        return {"id": str(row.id), "sealed": new["sealed"], "old_sealed": bytea(row.sealed)}

    def _listed(self, row: Any) -> dict[str, Any]:
        person = self._personal_data.open(row)
        new = self._personal_data.put_away(row.id, Channel(row.channel), person)
        earlier = bytea(row.address_hash)
        return new | {
            "id": str(row.id),
            "old_sealed": bytea(row.sealed),
            "earlier_hash": earlier if earlier != new["address_hash"] else None,
        }


def _resealed(row: Any, new: dict[str, Any]) -> dict[str, Any]:
    return {"id": str(row.id), "sealed": bytea(new["sealed"]), "old_sealed": bytea(row.sealed)}


def unknown_keys(engine: Engine, sealer: Sealer) -> list[str]:
    """Ids of keys that the sealer lacks, and under which notifications not yet sent are sealed."""
    with transaction(engine) as connection:
        found = {bytes(row.header)[2:].decode("ascii", "replace") for row in connection.execute(_LIVE_KEYS)}
    return sorted(found - set(sealer.key_ids))


_AFTER = binds.uuid("after")

# Keys of notifications that have not ended, by their index, and of recurring ones. The second byte of a sealed
# value is the length of the key's id.
_LIVE_KEYS: TextClause = text(f"""
SELECT DISTINCT substr(m.sealed, 1, 2 + get_byte(m.sealed, 1)) AS header
FROM states AS n JOIN messages AS m ON m.id = n.id
WHERE {LIVE} AND m.sealed IS NOT NULL
UNION SELECT substr(sealed, 1, 2 + get_byte(sealed, 1)) FROM recurring_notifications WHERE sealed IS NOT NULL
UNION SELECT substr(sealed, 1, 2 + get_byte(sealed, 1)) FROM recurring_recipients WHERE sealed IS NOT NULL
""")  # noqa: S608 - a constant

_ESTIMATE: TextClause = text("""
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class AS c
WHERE c.oid = 'rejected_messages'::regclass
  OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'messages'::regclass)
""")

# The page is cut before its rows are judged, so that a statement never reads more than one page. Redacted rows
# have nothing to seal.
_NOTIFICATIONS: TextClause = text("""
WITH page AS MATERIALIZED (
  SELECT id, (recipient IS NOT NULL OR sealed IS NOT NULL) AND (
    :rehash OR address_hash IS NULL OR (:is_on AND (
      sealed IS NULL OR substr(sealed, 1, length(:header)) <> :header
      OR (secrets IS NOT NULL AND substr(secrets, 1, length(:header)) <> :header)))) AS is_wanted,
    -- The recipient may have had another spelling: the address is sealed, or is not plain ASCII.
    channel = 'email' AND (sealed IS NOT NULL OR address ~ '[^ -~]|xn--|[.]$') AS is_doubtful
  FROM messages WHERE id > :after ORDER BY id LIMIT :limit
)
SELECT page.id, page.is_wanted, page.is_doubtful, m.channel, m.recipient, m.context, m.sealed, m.secrets,
  m.secret_names, m.address_hash
FROM page LEFT JOIN messages AS m ON m.id = page.id AND (page.is_wanted OR page.is_doubtful)
ORDER BY page.id
""").bindparams(_AFTER)

# A row that was sent meanwhile has lost its secrets, and they must not come back.
_UPDATE_NOTIFICATIONS: TextClause = text("""
WITH given AS MATERIALIZED (
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
    id uuid, recipient text, address text, address_hash bytea, context jsonb, sealed bytea, secrets bytea,
    old_recipient text, old_sealed bytea, old_secrets bytea, old_names text[])
), free AS MATERIALIZED (
  SELECT n.id FROM given JOIN states AS n ON n.id = given.id
    AND CASE WHEN n.status NOT IN ('queued', 'sending') THEN true END
  ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
)
UPDATE messages AS m SET recipient = r.recipient, address = r.address, address_hash = r.address_hash,
  context = r.context, sealed = r.sealed, secrets = r.secrets
FROM given AS r JOIN free ON free.id = r.id
WHERE m.id = r.id AND m.recipient IS NOT DISTINCT FROM r.old_recipient
  AND m.sealed IS NOT DISTINCT FROM r.old_sealed AND m.secrets IS NOT DISTINCT FROM r.old_secrets
  AND m.secret_names IS NOT DISTINCT FROM r.old_names
""")

# A suppression has only the hash of its address, so it follows a message to the same recipient.
_GIVEN = """
WITH given AS MATERIALIZED (
  SELECT DISTINCT address_hash, earlier_hash FROM json_to_recordset(CAST(:rows AS json)) AS r(
    address_hash bytea, earlier_hash bytea)
)"""

# Under our key: of another spelling. If there already is one under the new hash, both stay, because look-ups know
# both hashes. Of two that would get the same hash, the older one moves.
_MOVE_SUPPRESSIONS: TextClause = text(f"""
{_GIVEN}
UPDATE suppressions AS s SET address_hash = g.address_hash
FROM given AS g
WHERE s.address_hash = g.earlier_hash AND s.hash_key = :hash_key AND (s.lifted_at IS NOT NULL OR NOT EXISTS (
  SELECT FROM given AS all_of
  JOIN suppressions AS o ON o.address_hash = ANY(ARRAY[all_of.address_hash, all_of.earlier_hash])
  WHERE all_of.address_hash = g.address_hash AND o.scope = s.scope AND o.reason = s.reason AND o.lifted_at IS NULL
  AND (o.address_hash = g.address_hash OR (o.id < s.id AND o.hash_key = :hash_key))))
""")  # noqa: S608 - a constant

# Under another key: it ends, and a copy with our key replaces it, because the key of a row is never rewritten. The
# copy's id has the same time, so it stands beside the original in lists. The longest of a kind counts.
_MAKE_ROOM: TextClause = text(f"""
{_GIVEN}
UPDATE suppressions AS o SET lifted_at = least(now(), o.expires_at),
  lifted_by = CASE WHEN o.expires_at <= now() THEN 'expiry' ELSE 'replaced' END
FROM given AS g JOIN suppressions AS s ON s.address_hash = g.earlier_hash AND s.lifted_at IS NULL
  AND s.hash_key <> :hash_key AND (s.expires_at IS NULL OR s.expires_at > now())
WHERE o.address_hash = g.address_hash AND o.scope = s.scope AND o.reason = s.reason AND o.lifted_at IS NULL
  AND o.expires_at < coalesce(s.expires_at, 'infinity')
""")  # noqa: S608 - a constant

_REPLACE_SUPPRESSIONS: TextClause = text(f"""
{_GIVEN}, ended AS (
  UPDATE suppressions AS s SET lifted_at = least(now(), s.expires_at),
    lifted_by = CASE WHEN s.expires_at <= now() THEN 'expiry' ELSE 'replaced' END
  FROM given AS g WHERE s.address_hash = g.earlier_hash AND s.lifted_at IS NULL AND s.hash_key <> :hash_key
  RETURNING s.*, g.address_hash AS new_hash
), copied AS (
  INSERT INTO suppressions (id, address_hash, hash_key, channel, scope, reason, source, detail, notification_id,
    created_at, expires_at, provider, sender)
  SELECT CAST(left(CAST(id AS text), 18) || substr(CAST(gen_random_uuid() AS text), 19) AS uuid), new_hash,
    :hash_key, channel, scope, reason, source, detail, notification_id, created_at, expires_at, provider, sender
  FROM ended WHERE lifted_by = 'replaced' ORDER BY expires_at DESC NULLS FIRST, id
  ON CONFLICT (address_hash, scope, reason) WHERE lifted_at IS NULL DO NOTHING
)
SELECT id FROM ended WHERE lifted_by = 'replaced'
""")  # noqa: S608 - a constant


def _sealed_whole(table: str, columns: str) -> TextClause:
    """For tables in which one sealed value replaces all personal columns."""
    return text(f"""
WITH page AS MATERIALIZED (
  SELECT id, :is_on AND (sealed IS NULL OR substr(sealed, 1, length(:header)) <> :header) AS is_wanted
  FROM {table} WHERE id > :after ORDER BY id LIMIT :limit
)
SELECT page.id, page.is_wanted, false AS is_doubtful, {columns}, sealed
FROM page LEFT JOIN {table} AS t ON t.id = page.id AND page.is_wanted
ORDER BY page.id
""").bindparams(_AFTER)  # noqa: S608 - constants


def _update_sealed_whole(table: str, emptied: str) -> TextClause:
    return text(f"""
WITH given AS MATERIALIZED (
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, sealed bytea, old_sealed bytea)
), free AS MATERIALIZED (
  SELECT t.id FROM given JOIN {table} AS t ON t.id = given.id ORDER BY t.id FOR UPDATE OF t SKIP LOCKED
)
UPDATE {table} AS t SET {emptied}, sealed = r.sealed
FROM given AS r JOIN free ON free.id = r.id
WHERE t.id = r.id AND t.sealed IS NOT DISTINCT FROM r.old_sealed
""")  # noqa: S608 - constants


_REJECTED = _sealed_whole("rejected_messages", "body, headers")
_UPDATE_REJECTED = _update_sealed_whole("rejected_messages", "body = '', headers = '{}'")
_UNREAD = _sealed_whole("unread_bounces", "content")
_UPDATE_UNREAD = _update_sealed_whole("unread_bounces", "content = ''")

_PLANS = _sealed_whole("recurring_notifications", "channel, context, NULL AS recipient")
_UPDATE_PLANS = _update_sealed_whole("recurring_notifications", "context = NULL")

_LISTED: TextClause = text("""
WITH page AS MATERIALIZED (
  SELECT id, :rehash OR (:is_on AND (sealed IS NULL OR substr(sealed, 1, length(:header)) <> :header)) AS is_wanted
  FROM recurring_recipients WHERE id > :after ORDER BY id LIMIT :limit
)
SELECT page.id, page.is_wanted, false AS is_doubtful, n.channel, p.recipient, p.context, p.sealed,
  p.address_hash
FROM page LEFT JOIN recurring_recipients AS p ON p.id = page.id AND page.is_wanted
LEFT JOIN recurring_notifications AS n ON n.id = p.recurring_id
ORDER BY page.id
""").bindparams(_AFTER)

# Who was added again under another hash key is on the list twice: the later line stays. Those that go are deleted
# before the others get their hashes, because these look at `again` first.
_UPDATE_LISTED: TextClause = text("""
WITH given AS MATERIALIZED (
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
    id uuid, recipient text, address_hash bytea, context jsonb, sealed bytea, old_sealed bytea)
), free AS MATERIALIZED (
  SELECT p.id, p.recurring_id, r.address_hash FROM given AS r JOIN recurring_recipients AS p ON p.id = r.id
  ORDER BY p.id FOR UPDATE OF p SKIP LOCKED
), alike AS (
  SELECT id, recurring_id, address_hash FROM free
  UNION
  SELECT p.id, p.recurring_id, p.address_hash FROM free
  JOIN recurring_recipients AS p ON p.recurring_id = free.recurring_id AND p.address_hash = free.address_hash
), again AS (
  DELETE FROM recurring_recipients WHERE id IN (
    SELECT id FROM (
      SELECT id, row_number() OVER (PARTITION BY recurring_id, address_hash ORDER BY id DESC) AS place FROM alike
    ) AS placed WHERE place > 1)
  RETURNING id
), updated AS (
  UPDATE recurring_recipients AS p SET recipient = r.recipient, address_hash = r.address_hash,
    context = r.context, sealed = r.sealed
  FROM given AS r JOIN free ON free.id = r.id
  WHERE p.id = r.id AND p.sealed IS NOT DISTINCT FROM r.old_sealed AND p.id NOT IN (SELECT id FROM again)
  RETURNING p.id
)
SELECT id FROM updated UNION ALL SELECT id FROM again WHERE id IN (SELECT id FROM given)
""")
