"""Retention: redacts, deletes or drops rows in pages, each page one transaction.

Locked rows are passed over (SKIP LOCKED), and what has not ended is left alone. Any number of runs may work at the
same time, and the next run goes on where the last one ended. `retention_marks` holds how far the walks have come,
so that a night reads only what is new.

Crash points: before a month is dropped, its rows in tables without months are deleted page by page, its states
among them. A retry, a claim and a page lock the same states. So whatever comes alive first is passed over, and a
retry does not find what a page deleted first. What ended within the last day is passed over too. Until the drop,
messages without states are not shown. After a crash, or if the month has to stay, the next run goes on. The drop
itself is one transaction, and refuses as long as a state of the month is left (see `drop_month`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text

from notifier.domain.statuses import LIVE_STATUSES, Channel
from notifier.store import binds, ledger_sql
from notifier.store.notification_rules import HELD_TEST, LIVE
from notifier.store.records import TEST_KEYS
from notifier.store.repository import Repository
from notifier.store.schema.partitions import Month, drop_month, months

#: Rows of one transaction.
PAGE = 500
#: A notification that failed, expired or was suppressed keeps its secrets this long, so that an operator can retry
#: it. Hours.
SECRETS_KEPT_HOURS = 24
#: What ended less than this ago is neither redacted nor deleted, however old it is: an operator may retry it, its
#: callbacks are tried for as long, and a worker may still get the answer to another attempt. Hours.
RESTED_HOURS = 24
#: Holds ids that belong to no month; it is never dropped.
DEFAULT_PARTITION = "messages_default"


@dataclass(frozen=True, slots=True)
class Walked:
    #: Number of rows redacted or deleted.
    changed: int
    #: The page has to be looked at again: some rows were locked, or have not ended.
    is_left: bool
    #: The last id that was looked at. None: there are no more.
    last: UUID | None


@dataclass(frozen=True, slots=True)
class Span:
    """Notifications of one channel with ids between the two, both exclusive."""

    channel: Channel
    after: UUID
    before: UUID
    #: Only those accepted before this. None: all.
    accepted_before: datetime | None = None

    def values(self) -> dict[str, Any]:
        return {
            "channel": self.channel,
            "after": self.after,
            "before": self.before,
            "accepted_before": self.accepted_before or datetime.max.replace(tzinfo=UTC),
            "limit": PAGE,
            "live": list(LIVE_STATUSES),
        }


class RetentionRepository(Repository):
    def redact_page(self, span: Span) -> Walked:
        """Remove the personal data of the next notifications of the span. The rows stay."""
        return self._walk(_REDACT, span)

    def delete_page(self, span: Span, *, only_default: bool) -> Walked:
        """Delete the next notifications of the span, with everything that belongs to them."""
        return self._walk(_DELETE_DEFAULT if only_default else _DELETE, span)

    def _walk(self, statement: TextClause, span: Span) -> Walked:
        row = self._rows(statement, span.values())[0]
        return Walked(row.changed, row.wanted > row.changed, row.last)

    def count(self, span: Span, *, is_redaction: bool) -> int:
        """Number of notifications to redact or to delete."""
        return int(self._scalar(_COUNT_REDACT if is_redaction else _COUNT_DELETE, span.values()))

    def delete_rejected_page(self, channel: Channel, days: int) -> int:
        """Delete the oldest rejected messages of the channel; redacted, they would be worth nothing."""
        return self._execute(_DELETE_REJECTED, {"queues": f"notify.{channel}.%", "days": days, "limit": PAGE})

    def count_rejected(self, channel: Channel, days: int) -> int:
        """How many messages `delete_rejected_page` would delete in total."""
        return int(self._scalar(_COUNT_REJECTED, {"queues": f"notify.{channel}.%", "days": days}))

    def wipe_secrets_page(self) -> int:
        """Wipe the secrets of messages that ended unsent more than `SECRETS_KEPT_HOURS` ago and that nobody
        retried."""
        return self._execute(_WIPE, {"hours": SECRETS_KEPT_HOURS, "limit": PAGE})

    def months(self) -> list[Month]:
        """Months that have partitions, oldest first."""
        return months(self._engine)

    def drop(self, month: Month) -> bool:
        """See `drop_month`."""
        return drop_month(self._engine, month)

    def live_in(self, month: Month) -> int:
        """Number of notifications of the month that have not ended."""
        return int(self._scalar(_LIVE_IN, {"low": month.low, "high": month.high}))

    def forget_page_of(self, month: Month, after: UUID) -> UUID | None:
        """Take the next notifications of a month that is to be dropped, and delete what they have in tables
        without months. A notification that has not ended, has ended just now, or is locked keeps everything.
        Returns the last id. None: there are no more."""
        values = {"low": month.low, "high": month.high, "after": after, "limit": PAGE, "live": list(LIVE_STATUSES)}
        found: UUID | None = self._scalar(_FORGET_OF_MONTH, values)
        return found

    def owners_of_test_keys(self) -> list[str]:
        """The names under which idempotency keys of tests are stored."""
        return [row.name for row in self._rows(_OWNERS, {"test": TEST_KEYS})]

    def forget_test_keys_page(self, owner: str, after: str) -> str | None:
        """Delete those of the owner's next keys whose notifications are gone: the previous version left them.
        Returns the last key. None: there are no more."""
        found: str | None = self._scalar(_FORGET_TEST_KEYS, {"owner": owner, "after": after, "limit": PAGE})
        return found

    def mark(self, task: str) -> UUID:
        rows = self._rows(_MARK, {"task": task})
        return rows[0].reached if rows else UUID(int=0)

    def set_mark(self, task: str, reached: UUID) -> None:
        """Set the mark. A mark never goes back."""
        self._execute(_SET_MARK, {"task": task, "reached": reached})


_UUIDS = binds.uuid("after"), binds.uuid("before")
_LIVES = binds.texts("live")
_PERSONAL = """(m.recipient IS NOT NULL OR m.sealed IS NOT NULL OR m.context IS NOT NULL OR m.metadata <> '{}'
  OR m.callback_url IS NOT NULL)"""

# Condition on `states AS n`: it has ended, long enough ago.
_RESTED = f"""((n.status <> ALL(:live) OR {HELD_TEST})
  AND n.updated_at < now() - interval '{RESTED_HOURS} hours')"""


def _free() -> str:
    """The notifications of a page that have ended. Anything that brings one back to life takes the same lock."""
    return f"""free AS MATERIALIZED (
  SELECT n.id, page.producer || CASE WHEN n.is_test THEN '{TEST_KEYS}' ELSE '' END AS key_owner, page.key
  FROM page JOIN states AS n ON n.id = page.id AND CASE WHEN {_RESTED} THEN true END
  WHERE page.is_wanted ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
)"""


def _page(condition: str, table: str = "messages") -> str:
    """The page is cut before its rows are judged, so that a statement never reads more than one page."""
    return f"""
page AS MATERIALIZED (
  SELECT m.id, m.producer, coalesce(m.idempotency_key, m.id::text) AS key,
    m.channel = :channel AND m.accepted_at < :accepted_before AND {condition} AS is_wanted
  FROM {table} AS m
  WHERE m.id > :after AND m.id < :before ORDER BY m.id LIMIT :limit
)"""


def _told(done: str) -> str:
    return f"""
SELECT (SELECT count(*) FROM {done}) AS changed, (SELECT count(*) FROM page WHERE is_wanted) AS wanted,
  (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last
"""


# The hash stays, so that an auditor who has the address can still ask whether it got the message.
_REDACT: TextClause = text(f"""
WITH {_page(_PERSONAL)}, {_free()}, unread AS (
  DELETE FROM unread_bounces AS u USING free WHERE u.notification_id = free.id
), done AS (
  UPDATE messages AS m SET recipient = NULL, address = NULL, context = NULL, sealed = NULL, secrets = NULL,
    secret_names = CASE WHEN m.secret_names IS NOT NULL THEN '{{}}'::text[] END,
    metadata = '{{}}', callback_url = NULL
  FROM free WHERE m.id = free.id
  RETURNING m.id
)
{_told("done")}
""").bindparams(*_UUIDS, _LIVES)

_BELONGINGS = """
unread AS (
  DELETE FROM unread_bounces AS u USING free WHERE u.notification_id = free.id
), keys AS (
  DELETE FROM idempotency_keys AS k USING free
  WHERE k.producer = free.key_owner AND k.key = free.key AND k.notification_id = free.id
), told AS (
  DELETE FROM callbacks AS c USING free WHERE c.notification_id = free.id RETURNING c.id
), calls AS (
  DELETE FROM callback_attempts AS a USING told WHERE a.callback_id = told.id
), taken AS (
  DELETE FROM provider_messages AS m USING free WHERE m.notification_id = free.id
), stood AS (
  DELETE FROM states AS n USING free WHERE n.id = free.id
)"""


def _delete(table: str) -> TextClause:
    return text(f"""
WITH {_page("true", table)}, {_free()}, {_BELONGINGS}, attempted AS (
  DELETE FROM attempts AS a USING free WHERE a.notification_id = free.id
), happened AS (
  DELETE FROM events AS e USING free WHERE e.notification_id = free.id
), done AS (
  DELETE FROM messages AS m USING free WHERE m.id = free.id RETURNING m.id
)
{_told("done")}
""").bindparams(*_UUIDS, _LIVES)


_DELETE, _DELETE_DEFAULT = _delete("messages"), _delete(DEFAULT_PARTITION)

_FORGET_OF_MONTH: TextClause = text(f"""
WITH page AS MATERIALIZED (
  SELECT id, producer, coalesce(idempotency_key, id::text) AS key, true AS is_wanted FROM messages
  WHERE id > :after AND id >= :low AND id < :high ORDER BY id LIMIT :limit
), {_free()}, {_BELONGINGS}
SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1)
""").bindparams(_UUIDS[0], _LIVES, *binds.BOUNDS)


def _count(condition: str) -> TextClause:
    return text(f"""
SELECT count(*) FROM messages AS m JOIN states AS n ON n.id = m.id
WHERE m.id > :after AND m.id < :before AND m.channel = :channel AND m.accepted_at < :accepted_before
  AND {_RESTED} AND {condition} AND :limit > 0
""").bindparams(*_UUIDS, _LIVES)


_COUNT_REDACT, _COUNT_DELETE = _count(_PERSONAL), _count("true")

_LIVE_IN: TextClause = text(f"""
SELECT count(*) FROM states AS n WHERE n.id >= :low AND n.id < :high AND {LIVE}
""").bindparams(*binds.BOUNDS)

_OLD_REJECTED = "queue LIKE :queues AND received_at < now() - make_interval(days => :days)"

_DELETE_REJECTED: TextClause = text(f"""
DELETE FROM rejected_messages WHERE id IN (
  SELECT id FROM rejected_messages WHERE {_OLD_REJECTED} ORDER BY received_at LIMIT :limit FOR UPDATE SKIP LOCKED)
""")

_COUNT_REJECTED: TextClause = text(f"SELECT count(*) FROM rejected_messages WHERE {_OLD_REJECTED}")

# Steps from name to name by the index: one step for each owner, not for each key.
_OWNERS: TextClause = text("""
WITH RECURSIVE owners AS (
  SELECT min(producer) AS name FROM idempotency_keys
  UNION ALL
  SELECT (SELECT min(producer) FROM idempotency_keys WHERE producer > owners.name) FROM owners
  WHERE name IS NOT NULL
)
SELECT name FROM owners WHERE right(name, length(:test)) = :test ORDER BY name
""")

# One statement writes a key and its message, so no key can be seen before its message.
_FORGET_TEST_KEYS: TextClause = text("""
WITH page AS MATERIALIZED (
  SELECT key, notification_id FROM idempotency_keys
  WHERE producer = :owner AND key > :after ORDER BY key LIMIT :limit
), gone AS (
  DELETE FROM idempotency_keys AS k USING page
  WHERE k.producer = :owner AND k.key = page.key AND k.notification_id = page.notification_id
    AND NOT EXISTS (SELECT FROM messages AS m WHERE m.id = page.notification_id)
)
SELECT (SELECT key FROM page ORDER BY key DESC LIMIT 1)
""")

_WIPE: TextClause = text(f"""
WITH old AS MATERIALIZED (
  SELECT n.id, n.has_secrets FROM states AS n JOIN messages AS m ON m.id = n.id
  WHERE n.status IN ('failed', 'expired', 'suppressed') AND n.has_secrets AND cardinality(m.secret_names) > 0
    AND n.updated_at < now() - make_interval(hours => :hours)
  LIMIT :limit FOR UPDATE OF n SKIP LOCKED
)
{ledger_sql.wipe("old")}
""")

_MARK: TextClause = text("SELECT reached FROM retention_marks WHERE task = :task")

_SET_MARK: TextClause = text("""
INSERT INTO retention_marks AS m (task, reached) VALUES (:task, :reached)
ON CONFLICT (task) DO UPDATE SET reached = greatest(m.reached, excluded.reached), updated_at = now()
""").bindparams(binds.uuid("reached"))
