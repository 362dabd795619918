"""Retention: rows are redacted, deleted or dropped in pages, each page one transaction.

Locked rows are passed over (SKIP LOCKED), and what has not ended is left alone. Any number of runs at once do no
harm, and the next run goes on where one ended in the middle. `retention_marks` holds how far the walks have come,
so that a night reads only what is new.

Crash points: of a month that is dropped, what lies in tables without months goes first, page by page, its states
among it. A retry, a claim and a page lock the same states: what comes alive first is passed over, and what a page
took first is not there for a retry. What ended within a day is passed over as well. Until the drop, those whose
states are gone are not seen. After a crash, or if the month has to stay, the next run goes on. The drop itself is
one transaction, and refuses while a state of the month is left: see `drop_month`.
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
#: What failed, expired or was suppressed keeps its secrets this long, for an operator to retry it. Hours.
SECRETS_KEPT_HOURS = 24
#: What ended less than this ago is neither redacted nor deleted, however old it is: an operator may retry it, its
#: callbacks are tried for as long, and a worker may still have the answer to another attempt. Hours.
RESTED_HOURS = 24
#: Holds ids that lie in no month; it is never dropped.
DEFAULT_PARTITION = "messages_default"


@dataclass(frozen=True, slots=True)
class Walked:
    #: Redacted or deleted.
    changed: int
    #: It has to be looked at again: some were locked, or have not ended.
    is_left: bool
    #: The last id that was looked at; None: there are no more.
    last: UUID | None


@dataclass(frozen=True, slots=True)
class Span:
    """Notifications of one channel with ids between the two, both exclusive."""

    channel: Channel
    after: UUID
    before: UUID
    #: Only those accepted before then; None: all.
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
        """Take the personal data out of the next notifications of the span; the rows stay."""
        return self._walk(_REDACT, span)

    def delete_page(self, span: Span, *, only_default: bool) -> Walked:
        """Delete the next notifications of the span with all that belongs to them."""
        return self._walk(_DELETE_DEFAULT if only_default else _DELETE, span)

    def _walk(self, statement: TextClause, span: Span) -> Walked:
        row = self._rows(statement, span.values())[0]
        return Walked(row.changed, row.wanted > row.changed, row.last)

    def count(self, span: Span, *, is_redaction: bool) -> int:
        """How many there are to redact, or to delete."""
        return int(self._scalar(_COUNT_REDACT if is_redaction else _COUNT_DELETE, span.values()))

    def delete_rejected_page(self, channel: Channel, days: int) -> int:
        """Delete the oldest rejected messages of the channel: redacted they would be worth nothing."""
        return self._execute(_DELETE_REJECTED, {"queues": f"notify.{channel}.%", "days": days, "limit": PAGE})

    def count_rejected(self, channel: Channel, days: int) -> int:
        """How many `delete_rejected_page` would delete in all."""
        return int(self._scalar(_COUNT_REJECTED, {"queues": f"notify.{channel}.%", "days": days}))

    def wipe_secrets_page(self) -> int:
        """Wipe the secrets of messages that ended unsent a day ago and that nobody retried."""
        return self._execute(_WIPE, {"hours": SECRETS_KEPT_HOURS, "limit": PAGE})

    def months(self) -> list[Month]:
        """Months that have partitions, the oldest first."""
        return months(self._engine)

    def drop(self, month: Month) -> bool:
        """See `drop_month`."""
        return drop_month(self._engine, month)

    def live_in(self, month: Month) -> int:
        """Notifications of the month that have not ended."""
        return int(self._scalar(_LIVE_IN, {"low": month.low, "high": month.high}))

    def forget_page_of(self, month: Month, after: UUID) -> UUID | None:
        """Of the next notifications of a month that is to be dropped, delete what lies in tables without months.
        What has not ended, or just now, or is locked, keeps all of it. Returns the last id; None: there are no
        more."""
        values = {"low": month.low, "high": month.high, "after": after, "limit": PAGE, "live": list(LIVE_STATUSES)}
        found: UUID | None = self._scalar(_FORGET_OF_MONTH, values)
        return found

    def owners_of_test_keys(self) -> list[str]:
        """Of idempotency keys of tests: the names that they are stored under."""
        return [row.name for row in self._rows(_OWNERS, {"test": TEST_KEYS})]

    def forget_test_keys_page(self, owner: str, after: str) -> str | None:
        """Of the owner's next keys, delete those whose notifications are gone: the version before left them.
        Returns the last key; None: there are no more."""
        found: str | None = self._scalar(_FORGET_TEST_KEYS, {"owner": owner, "after": after, "limit": PAGE})
        return found

    def mark(self, task: str) -> UUID:
        rows = self._rows(_MARK, {"task": task})
        return rows[0].reached if rows else UUID(int=0)

    def set_mark(self, task: str, reached: UUID) -> None:
        """A mark never goes back."""
        self._execute(_SET_MARK, {"task": task, "reached": reached})


_UUIDS = binds.uuid("after"), binds.uuid("before")
_LIVES = binds.texts("live")
_PERSONAL = """(m.recipient IS NOT NULL OR m.sealed IS NOT NULL OR m.context IS NOT NULL OR m.metadata <> '{}'
  OR m.callback_url IS NOT NULL)"""

# Of `states AS n`: it has ended, long enough ago.
_RESTED = f"""((n.status <> ALL(:live) OR {HELD_TEST})
  AND n.updated_at < now() - interval '{RESTED_HOURS} hours')"""


def _free() -> str:
    """Of a page, those that have ended. Whatever brings one of them to life again takes the same lock."""
    return f"""free AS MATERIALIZED (
  SELECT n.id, page.producer || CASE WHEN n.is_test THEN '{TEST_KEYS}' ELSE '' END AS key_owner, page.key
  FROM page JOIN states AS n ON n.id = page.id AND CASE WHEN {_RESTED} THEN true END
  WHERE page.is_wanted ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
)"""


def _page(condition: str, table: str = "messages") -> str:
    """The page is cut before its rows are judged, so a statement never reads more than one page."""
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

# From name to name by the index: one step for each owner, not for each key.
_OWNERS: TextClause = text("""
WITH RECURSIVE owners AS (
  SELECT min(producer) AS name FROM idempotency_keys
  UNION ALL
  SELECT (SELECT min(producer) FROM idempotency_keys WHERE producer > owners.name) FROM owners
  WHERE name IS NOT NULL
)
SELECT name FROM owners WHERE right(name, length(:test)) = :test ORDER BY name
""")

# A key and its message are written by one statement, so no key is seen before its message.
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
