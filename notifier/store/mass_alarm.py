"""The mass alarm: too many hard bounces of one sender identity or one provider within an hour.

They mean that something is wrong on our side, not with the recipients. So the suppressions that they would cause
are held for an operator.

Only answers that would suppress somebody pay for this. Their transaction counts bounces by scope and minute. It
keeps the row of the count locked until it commits. So two transactions of one scope are judged one after the
other, and the alarm goes off within a batch of the threshold, however many processes there are. Sent mails are
counted only if there are enough bounces for an alarm, and only the newest; a count that was enough is used for a
minute.

Crash points: counts and held or added suppressions are in one transaction with the answer that caused them.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, TextClause, text

from notifier.config.logs import log
from notifier.domain.message import time_of_id
from notifier.store import binds
from notifier.store.clock import clock_of
from notifier.store.ledger_rows import as_json
from notifier.store.records import NewSuppression
from notifier.store.repository import Repository
from notifier.store.schema.partitions import first_id

#: Bounces and mails are counted over this time. An alarm lasts this long after the last bounce beyond the limit.
WINDOW = timedelta(hours=1)
#: Maximum number of mails that are counted, newest first. If a sender has only few of these, its alarm goes off
#: early.
_MOST = 500_000
#: How long a count that was enough is used. Seconds.
_FRESH_SECONDS = 60.0
#: The pause between two counts, as a multiple of the time that the first one took.
_PAUSE = 10.0

#: (channel, sender, template) of a notification → the name of its sender identity.
Identify = Callable[[str, str | None, str], str]


@dataclass(frozen=True, slots=True)
class AlarmRule:
    #: Maximum share of hard bounces among the mails sent.
    max_share: float
    #: With fewer mails there is no alarm.
    min_messages: int

    def is_too_much(self, bounced: int, sent: int) -> bool:
        return sent >= self.min_messages and bounced > self.max_share * sent


@dataclass(frozen=True, slots=True)
class Alarm:
    scope: str
    since: datetime
    until: datetime
    bounced: int
    sent: int


@dataclass(frozen=True, slots=True)
class _Known:
    """A count of mails; when it was made, and when it may be repeated, on this process's monotonic clock."""

    sent: int
    at: float
    again_at: float


class HardBounceWatch:
    """Counts hard bounces and decides which suppressions wait. Thread-safe; one per process."""

    def __init__(self, rule: AlarmRule, identify: Identify) -> None:
        self._rule = rule
        self._identify = identify
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def admit(self, connection: Connection, rows: Sequence[NewSuppression]) -> list[NewSuppression]:
        """Returns those that may be added now. The others are held, each with an event."""
        watched = [row for row in rows if row.is_watched]
        if not watched:
            return list(rows)
        alarmed = self._alarmed(connection, watched)
        held = [row for row in watched if alarmed.intersection(row.origins)]
        if held:
            connection.execute(_HOLD, {"rows": rows_of(connection, held)})
        return [row for row in rows if row not in held]

    def _alarmed(self, connection: Connection, rows: Sequence[NewSuppression]) -> set[str]:
        """Count these bounces. Returns the scopes of `rows` that have an alarm."""
        counts: Counter[str] = Counter(scope for row in rows for scope in row.origins)
        refused: Counter[str] = Counter(scope for row in rows if row.is_refusal for scope in row.origins)
        given = [{"scope": one, "count": counts[one], "refused": refused[one]} for one in sorted(counts)]
        connection.execute(_COUNT, {"rows": json.dumps(given)})
        # A separate statement, so that it sees what others committed while the first one waited for them.
        values = {"scopes": json.dumps(sorted(counts)), "seconds": WINDOW.total_seconds()}
        found = connection.execute(_LOOK, values).all()
        alarmed = {row.scope for row in found if row.is_on}
        for row in found:
            sent = self._sent(connection, rows, row)
            if sent is not None and self._rule.is_too_much(row.bounced, sent):
                told = {"scope": row.scope, "bounced": row.bounced, "sent": sent}
                connection.execute(_RAISE, {**told, "seconds": WINDOW.total_seconds()})
                if not row.is_on:
                    # A scope is a name in notifier.toml, not personal data.
                    log.error("suppressions.mass_alarm", **told)
                alarmed.add(row.scope)
        return alarmed

    def _sent(self, connection: Connection, rows: Sequence[NewSuppression], row: Any) -> int | None:
        """The number of mails to judge the bounces of a scope against. None: too few bounces for an alarm."""
        if row.bounced <= self._rule.max_share * self._rule.min_messages:
            return None
        now = time.monotonic()
        with self._lock:
            known = self._known.get(row.scope)
        if known is not None and now < known.at + _FRESH_SECONDS:
            total = known.sent + int(row.refused)
            is_enough = row.is_on or row.bounced <= self._rule.max_share * total
            if is_enough or now < known.again_at:
                return total
        sent = self._count_sent(connection, rows, row.scope)
        took = time.monotonic() - now
        with self._lock:
            self._known[row.scope] = _Known(sent, now, now + took * (1 + _PAUSE))
        return sent + int(row.refused)

    def _count_sent(self, connection: Connection, rows: Sequence[NewSuppression], scope: str) -> int:
        """Mails sent in the last hour, or in the hour around the acceptance of the bounced mail if that is more: a
        mail sent in the evening may bounce at night."""
        now = clock_of(connection).now()
        spans = [(now - WINDOW, now + WINDOW)]
        ids = [row.notification_id for row in rows if row.notification_id and scope in row.origins]
        at = min(map(time_of_id, ids), default=now)
        if at < now - WINDOW:
            spans.append((at - WINDOW / 2, at + WINDOW / 2))
        return max(self._count_span(connection, scope, low, high) for low, high in spans)

    def _count_span(self, connection: Connection, scope: str, low: datetime, high: datetime) -> int:
        groups = connection.execute(_SENT, {"low": first_id(low), "high": first_id(high), "limit": _MOST}).all()
        return sum(int(row.sent) for row in groups if scope in self._scopes_of(row))

    def _scopes_of(self, row: Any) -> tuple[str, str]:
        return f"provider:{row.provider}", f"sender:{self._identify(row.channel, row.sender, row.template)}"


class AlarmRepository(Repository):
    def active(self) -> list[Alarm]:
        """Alarms that are on, oldest first."""
        return self._records(Alarm, _ACTIVE)

    def forget_old(self) -> int:
        """Delete counts that no window reaches any more. Returns the number of rows."""
        return self._execute(_FORGET)


def rows_of(connection: Connection, suppressions: Iterable[NewSuppression]) -> str:
    """The rows as JSON. All callers use the same order, so that two that write the same rows do not deadlock."""
    ordered = sorted(suppressions, key=lambda new: (new.address_hash, new.scope, new.reason))
    return as_json([new.as_dict(clock_of(connection).new_id()) for new in ordered])


# ORDER BY, so that two transactions that count the same scopes do not deadlock.
_COUNT: TextClause = text("""
INSERT INTO hard_bounces AS b (scope, minute, count, refused)
SELECT r.scope, date_trunc('minute', clock_timestamp()), r.count, r.refused
FROM json_to_recordset(CAST(:rows AS json)) AS r(scope text, count int, refused int) ORDER BY r.scope
ON CONFLICT (scope, minute) DO UPDATE SET count = b.count + excluded.count, refused = b.refused + excluded.refused
""")

_LOOK: TextClause = text("""
SELECT w.scope, sum(b.count)::int AS bounced, sum(b.refused)::int AS refused,
  EXISTS (SELECT FROM bounce_alarms AS a WHERE a.scope = w.scope AND a.until > now()) AS is_on
FROM json_array_elements_text(CAST(:scopes AS json)) AS w(scope)
JOIN hard_bounces AS b ON b.scope = w.scope AND b.minute > now() - make_interval(secs => :seconds)
GROUP BY w.scope ORDER BY w.scope
""")

# The page is cut before its rows are judged, so that no more than `limit` rows are read.
_SENT: TextClause = text("""
WITH page AS MATERIALIZED (
  SELECT m.channel, m.sender, m.template, n.provider, n.sent_at, n.is_test
  FROM messages AS m JOIN states AS n ON n.id = m.id
  WHERE m.id >= :low AND m.id < :high ORDER BY m.id DESC LIMIT :limit
)
SELECT channel, sender, template, provider, count(*)::int AS sent
FROM page WHERE sent_at IS NOT NULL AND NOT is_test GROUP BY channel, sender, template, provider
""").bindparams(*binds.BOUNDS)

_RAISE: TextClause = text("""
INSERT INTO bounce_alarms AS a (scope, until, bounced, sent)
VALUES (:scope, now() + make_interval(secs => :seconds), :bounced, :sent)
ON CONFLICT (scope) DO UPDATE SET
  since = CASE WHEN a.until > now() THEN a.since ELSE now() END,
  until = excluded.until, bounced = excluded.bounced, sent = excluded.sent
""")

#: The rows of `rows_of`.
ROWS = """
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
    id uuid, address_hash text, hash_key text, channel text, scope text, reason text, source text, detail text,
    notification_id uuid, expires_at timestamptz, provider text, sender text)
"""
#: Columns and values to insert, for `suppressions` and `held_suppressions`.
FROM_ROWS = f"""(id, address_hash, hash_key, channel, scope, reason, source, detail, notification_id, expires_at,
  provider, sender)
SELECT id, decode(address_hash, 'hex'), hash_key, channel, scope, reason, source, detail, notification_id,
  expires_at, provider, sender
FROM ({ROWS}) AS incoming"""  # noqa: S608 - constants

_HOLD: TextClause = text(f"""
WITH held AS (
  INSERT INTO held_suppressions {FROM_ROWS}
  ON CONFLICT (address_hash, scope, reason) DO NOTHING
  RETURNING notification_id, reason
)
INSERT INTO events (notification_id, kind, detail)
SELECT notification_id, 'suppression_held', reason FROM held WHERE notification_id IS NOT NULL
""")  # noqa: S608 - constants

_ACTIVE: TextClause = text("""
SELECT scope, since, until, bounced, sent FROM bounce_alarms WHERE until > now() ORDER BY since, scope
""")

_FORGET: TextClause = text("DELETE FROM hard_bounces WHERE minute < now() - interval '1 day'")
