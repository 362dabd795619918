"""Fills in what the console shows besides notifications of the past: recent waiting and failed ones, suppressions,
rejected messages, operator records, callbacks, counts of each minute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import psycopg

from bench import past
from notifier.telemetry.metrics import SENT_BOUNDS

#: Length of the past in days.
DAYS = 60
#: Maximum notifications in an outage of the last day; the following numbers are for each million.
OUTAGE = 10_000
_SCHEDULED, _QUEUED, _RETRYING = 5_000, 1_000, 500
_SUPPRESSIONS, _REJECTED, _CALLBACKS, _RECORDS = 100_000, 20_000, 100_000, 20_000
#: Number of buckets of `minute_counts.sent`.
_BUCKETS = len(SENT_BOUNDS) + 1

_ID = "(lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0') || '7' || substr(md5('{salt}' || n), 1, 3) || '8' || substr(md5('{salt}' || n), 4, 15))::uuid"
_AT = "now() - n * interval '{days} days' / {rows}"

# Among the newest, in order of age: those that wait, then an outage of a provider.
_WAITING = """
UPDATE states AS s SET status = w.status, reason = w.reason, detail = w.detail, due_at = w.due_at, sent_at = NULL,
  provider = NULL, provider_message_id = NULL, attempt_count = 1
FROM (
  SELECT id, CASE WHEN n <= {queued} THEN 'queued' WHEN n <= {retrying} THEN 'retrying' WHEN n <= {scheduled} THEN 'scheduled'
      ELSE 'failed' END AS status,
    CASE WHEN n > {scheduled} THEN 'provider_unavailable' WHEN n > {queued} AND n <= {retrying} THEN 'provider_unavailable' END
      AS reason,
    CASE WHEN n > {scheduled} THEN '421 4.3.0 try again later' END AS detail,
    CASE WHEN n <= {retrying} THEN now() + n * interval '1 second' WHEN n <= {scheduled} THEN now() + n * interval '1 minute' END
      AS due_at
  FROM (SELECT id, row_number() OVER (ORDER BY id DESC) AS n FROM states ORDER BY id DESC LIMIT {until}) AS newest
) AS w WHERE s.id = w.id
"""

_SUPPRESSED = f"""
INSERT INTO suppressions (id, address_hash, hash_key, channel, scope, reason, source, detail, created_at, expires_at,
  lifted_at, lifted_by, provider, sender)
SELECT {_ID.format(at="at", salt="s")}, sha256(('s' || n)::bytea), 'key', CASE WHEN n %% 10 < 2 THEN 'sms' ELSE 'email' END,
  CASE WHEN n %% 20 = 3 THEN 'category:digest' ELSE 'global' END,
  CASE WHEN n %% 1000 = 0 THEN 'complaint' WHEN n %% 5000 = 1 THEN 'manual' WHEN n %% 10 = 1 THEN 'unsubscribed'
    WHEN n %% 10 = 2 THEN 'invalid_recipient' ELSE 'hard_bounce' END,
  CASE WHEN n %% 10 = 1 THEN 'unsubscribe' ELSE 'bounce' END, '550 5.1.1 no such user', at,
  CASE WHEN n %% 7 = 0 THEN at + interval '30 days' END,
  CASE WHEN n %% 11 = 0 THEN at + interval '1 day' END, CASE WHEN n %% 11 = 0 THEN 'operator:mona' END, 'smtp', 'default'
FROM (SELECT n, {_AT.format(days=DAYS, rows="%(rows)s")} AS at FROM generate_series(1, %(rows)s) AS n) AS rows
"""

_HELD = f"""
INSERT INTO held_suppressions (id, address_hash, hash_key, channel, scope, reason, source, detail, provider, sender)
SELECT {_ID.format(at="now()", salt="h")}, sha256(('h' || n)::bytea), 'key', 'email', 'global', 'hard_bounce', 'bounce',
  '550 5.1.1 no such user', 'smtp', 'default' FROM generate_series(1, %(rows)s / 100) AS n
"""

_REJECTIONS = f"""
INSERT INTO rejected_messages (id, received_at, queue, producer, body, body_size, headers, faults, redelivered)
SELECT {_ID.format(at="at", salt="r")}, at, 'notify.email.normal', (ARRAY['shop', 'billing', 'tickets'])[1 + n %% 3],
  convert_to('{{"to": "person' || n || '@example.com", "template": "recipt"}}', 'UTF8'), 60, '{{}}',
  jsonb_build_array(jsonb_build_object('field', 'template', 'code',
    CASE WHEN n %% 4 = 0 THEN 'missing' ELSE 'unknown_template' END, 'problem', 'there is none', 'fix', 'Correct its name')), false
FROM (SELECT n, {_AT.format(days=DAYS, rows="%(rows)s")} AS at FROM generate_series(1, %(rows)s) AS n) AS rows
"""

_RECORDED = f"""
INSERT INTO operator_records (id, at, operator, action, selection, reason, result, finished_at)
SELECT {_ID.format(at="at", salt="o")}, at, (ARRAY['mona', 'ada', 'omar'])[1 + n %% 3],
  (ARRAY['retry', 'cancel', 'suppress', 'pause', 'replay_rejected'])[1 + n %% 5], '{{"filter": {{"status": "failed"}}}}',
  'the relay is open again', '{{"matched": 10, "changed": 9, "expired": 0, "skipped": 1}}', at
FROM (SELECT n, {_AT.format(days=DAYS, rows="%(rows)s")} AS at FROM generate_series(1, %(rows)s) AS n) AS rows
"""

_JOBS = """
INSERT INTO jobs (id, state, total, next_at, due_at)
SELECT id, 'done', 10, at, NULL FROM operator_records WHERE action = 'retry' ORDER BY id DESC LIMIT 500
"""

_TOLD = f"""
INSERT INTO callbacks (id, notification_id, producer, endpoint, status, attempt, occurred_at, state, due_at, begun_at, attempt_count,
  settled_at, failure)
SELECT {_ID.format(at="updated_at", salt="c")}, id, 'shop', 'shop', 'sent', 1, updated_at,
  CASE WHEN n %% 100 = 0 THEN 'parked' WHEN n %% 100 = 1 THEN 'waiting' ELSE 'delivered' END,
  CASE WHEN n %% 100 = 1 THEN now() + interval '1 minute' END, updated_at, 1,
  CASE WHEN n %% 100 <> 1 THEN updated_at END, NULL
FROM (SELECT row_number() OVER () AS n, id, updated_at FROM states WHERE status = 'sent' ORDER BY id DESC LIMIT %(rows)s) AS rows
"""

_ENDPOINT = """
INSERT INTO callback_endpoints (endpoint, producer, delivered_count) VALUES ('shop', 'shop', 1000000)
"""

_AT_PROVIDERS = """
INSERT INTO provider_messages (id_space, provider_message_id, notification_id, attempt, proof)
SELECT 'twilio', provider_message_id, id, 1, 'answer' FROM states WHERE channel = 'sms' AND provider_message_id IS NOT NULL
"""

_MINUTES = """
INSERT INTO minute_counts (minute, channel, lane, accepted, sent, waiting)
SELECT minute, channel, lane, 10, array_fill(1, ARRAY[%(buckets)s::int]), 20
FROM generate_series(date_trunc('minute', now()) - interval '8 days', now(), interval '1 minute') AS minute,
  unnest(ARRAY['email', 'sms']) AS channel, unnest(ARRAY['urgent', 'normal', 'bulk']) AS lane
"""

_OUTCOMES = """
INSERT INTO provider_outcomes (provider, slice_at, outcome, count, seconds)
SELECT provider, slice_at, outcome, 10, 0.5
FROM generate_series(date_bin('10 seconds', now(), 'epoch') - interval '1 day', now(), interval '10 seconds') AS slice_at,
  unnest(ARRAY['smtp', 'twilio']) AS provider, unnest(ARRAY['accepted', 'rejected']) AS outcome
"""

_UNREAD = f"""
INSERT INTO unread_bounces (id, notification_id, attempt, digest, size, content)
SELECT {_ID.format(at="now()", salt="u")}, {_ID.format(at="now()", salt="u")}, 1, sha256(('u' || n)::bytea), 40,
  'Subject: I am away until Monday'::bytea FROM generate_series(1, 100) AS n
"""

_KEYS = """
INSERT INTO api_keys (id, name, producer, scopes, secret_hash, created_by)
SELECT substr(md5('k' || n), 1, 12), 'Key ' || n, 'shop', '["send"]', sha256(n::text::bytea), 'mona' FROM generate_series(1, 50) AS n
"""


class Examples(NamedTuple):
    """Ids and values for pages about one thing."""

    #: A mail that was sent, with callbacks; a mail in a failed batch.
    sent: UUID
    failed: UUID
    #: The hash of a recipient in hex.
    recipient: str


def fill(database_url: str, rows: int) -> None:
    """Put `rows` notifications and everything that belongs to them into a migrated, empty database, like
    `past.fill`."""
    past.fill(database_url, rows, days=DAYS)
    share = rows / 1_000_000
    counts = [max(1, round(number * share)) for number in (_QUEUED, _RETRYING, _SCHEDULED)]
    queued, retrying, scheduled = (sum(counts[: place + 1]) for place in range(3))
    until = scheduled + round(OUTAGE * share)
    waiting = _WAITING.format(queued=queued, retrying=retrying, scheduled=scheduled, until=until)
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in (waiting, _ENDPOINT, _AT_PROVIDERS, _OUTCOMES, _UNREAD, _KEYS):
            connection.execute(statement.encode())
        connection.execute(_MINUTES, {"buckets": _BUCKETS})
        for statement, number in _COUNTED:
            connection.execute(statement.encode(), {"rows": max(100, round(number * share))})
        connection.execute(_JOBS)


_COUNTED: Sequence[tuple[str, int]] = (
    (_SUPPRESSED, _SUPPRESSIONS),
    (_HELD, _SUPPRESSIONS),
    (_REJECTIONS, _REJECTED),
    (_RECORDED, _RECORDS),
    (_TOLD, _CALLBACKS),
)


def examples(database_url: str) -> Examples:
    """Examples from what `fill` made."""
    with psycopg.connect(database_url) as connection:
        sent = connection.execute("SELECT notification_id FROM callbacks ORDER BY id DESC LIMIT 1").fetchone()
        failed = connection.execute(
            "SELECT id FROM states WHERE status = 'failed' ORDER BY id DESC LIMIT 1"
        ).fetchone()
        assert sent is not None
        assert failed is not None
        found = connection.execute(
            "SELECT encode(address_hash, 'hex') FROM messages WHERE id = %s", [sent[0]]
        ).fetchone()
        assert found is not None
    return Examples(sent[0], failed[0], found[0])
