"""The statements of claims and of beginning attempts, made as in `ledger_sql`.

The answer to each of them may be lost although it was carried out. Then it is repeated, after `WAIT_FOR`: `CLAIM`
finds its own by its token, and `STARTED` finds what `START_ATTEMPTS` had begun.
"""

from __future__ import annotations

from sqlalchemy import TextClause, text

from notifier.store import binds

_TOKEN = binds.uuid("token")

# Before a statement is repeated: if the server is still at it, it ends first.
WAIT_FOR: TextClause = text("""
SELECT id FROM states WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
""").bindparams(binds.IDS)

# What is `sending` under the same token was claimed by this very statement, whose answer was lost: it is returned
# again, with the same number and a whole lease. Each run of a task has a token of its own.
# `tries` counts calls; an attempt that was begun and not called (see `GIVE_BACK`) is none.
CLAIM: TextClause = text("""
WITH wanted AS MATERIALIZED (
  SELECT n.status = 'queued' AS is_new, m.* FROM unnest(:ids) AS w(id)
  JOIN states AS n ON n.id = w.id AND CASE
    WHEN n.status = 'queued' THEN true
    WHEN n.status = 'sending' AND n.claim_token = :token THEN true END
  JOIN messages AS m ON m.id = w.id
  ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
), claimed AS (
  UPDATE states AS n SET
    status = CASE WHEN m.expires_at <= now() THEN 'expired' ELSE 'sending' END,
    reason = CASE WHEN m.expires_at <= now() THEN 'expired' END,
    detail = NULL,
    claim = n.claim + m.is_new::int,
    claim_token = :token,
    due_at = CASE WHEN m.expires_at <= now() THEN NULL ELSE now() + make_interval(secs => :lease) END,
    updated_at = now()
  FROM wanted AS m WHERE n.id = m.id AND CASE WHEN n.status IN ('queued', 'sending') THEN true END
  RETURNING m.*, n.status, n.reason, n.is_test, n.claim, n.crash_count, n.attempt_count, n.replayed_at,
    n.replayed_attempts
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason)
  SELECT id, 'status', status, reason FROM claimed WHERE is_new OR status = 'expired'
)
SELECT id, producer, channel, lane, recipient, template, locale, context, sealed, secrets, sender, reply_to,
  expires_at, on_unknown, attachments, is_test, claim, crash_count,
  attempt_count, attempt_count - replayed_attempts - CASE WHEN attempt_count = replayed_attempts THEN 0 ELSE (
    SELECT count(*)::int FROM attempts AS a WHERE a.notification_id = claimed.id AND a.number > replayed_attempts
    AND a.outcome = 'unavailable' AND a.reason = 'lease_expired') END AS tries,
  extract(epoch FROM now() - greatest(accepted_at, send_at, replayed_at)) AS age_seconds,
  extract(epoch FROM expires_at - now()) AS seconds_to_expiry
FROM claimed WHERE status = 'sending' ORDER BY id
""").bindparams(binds.IDS, _TOKEN)

# Only for those that were in hand when a worker died.
CONFIRM_CLAIMS: TextClause = text("""
UPDATE states AS n SET confirmed_claim = n.claim
FROM unnest(:ids) AS w(id) WHERE n.id = w.id AND CASE
  WHEN n.status = 'sending' AND n.claim_token = :token THEN true END
""").bindparams(binds.IDS, _TOKEN)

# Suppressions are looked up here and not with the claim: the sender identity and the template are known only now,
# it costs no further statement, and a wish of a moment ago is respected.
START_ATTEMPTS: TextClause = text("""
WITH wanted AS MATERIALIZED (
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
    id uuid, claim int, number int, provider text, hashes bytea[], sender text, category text, exempt boolean)
), barred AS MATERIALIZED (
  SELECT w.id, w.claim, s.*
  -- With a limit of its own it is looked up row by row, however small the planner believes the table to be.
  FROM wanted AS w CROSS JOIN LATERAL (
    SELECT s.reason, s.scope, s.created_at, s.source FROM suppressions AS s
    WHERE s.address_hash = ANY(w.hashes) AND s.lifted_at IS NULL AND CASE
      WHEN s.expires_at <= now() THEN false
      WHEN w.exempt THEN s.scope = 'global' AND s.reason <> ALL(:wishes)
      ELSE s.scope IN ('global', w.sender, w.category) END
    LIMIT 1
  ) AS s
), held AS (
  UPDATE states AS n SET attempt_count = r.number
  FROM wanted AS r
  WHERE n.id = r.id AND r.id NOT IN (SELECT id FROM barred) AND CASE
    -- No call without this row: tests go to the simulator, and nothing else does.
    WHEN n.is_test <> (r.provider = :simulator) THEN false
    WHEN n.claim = r.claim AND n.status = 'sending' AND n.due_at > now() + make_interval(secs => :margin)
    -- The caller knows its number: a statement that comes late, or twice, begins nothing.
    THEN n.attempt_count = r.number - 1 END
  RETURNING n.id, n.claim, r.number, r.provider
), started AS (
  INSERT INTO attempts (notification_id, number, provider) SELECT id, number, provider FROM held
), stopped AS (
  UPDATE states AS n SET status = 'suppressed',
    reason = CASE b.reason WHEN 'manual' THEN 'operator' ELSE b.reason END,
    detail = format('%s, since %s, by %s', b.scope, to_char(b.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
      b.source),
    due_at = NULL, updated_at = now()
  FROM barred AS b
  WHERE n.id = b.id AND CASE WHEN n.claim = b.claim AND n.status = 'sending' THEN true END
  RETURNING n.id, n.reason, n.detail
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason, detail)
  SELECT id, 'status', 'suppressed', reason, detail FROM stopped
)
SELECT id, claim, number, provider FROM held
""").bindparams(binds.texts("wishes"))

# Those that `START_ATTEMPTS` had begun, after its answer was lost.
STARTED: TextClause = text("""
SELECT n.id, n.claim, a.number, a.provider
FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, claim int, number int, provider text)
JOIN states AS n ON n.id = r.id AND CASE
  WHEN n.claim = r.claim AND n.status = 'sending' AND n.due_at > now() + make_interval(secs => :margin)
  THEN n.attempt_count = r.number END
JOIN attempts AS a ON a.notification_id = r.id AND a.number = r.number
  AND CASE WHEN a.provider = r.provider THEN a.outcome IS NULL END
""")
