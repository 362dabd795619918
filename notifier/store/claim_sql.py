"""The statements that claim notifications and begin attempts, in the style of `ledger_sql`.

A new notification takes the short way: `READ_QUEUED`, then `CLAIM_AND_START`. Any other is claimed before anybody
looks into it: `CLAIM`, then `START_ATTEMPTS`, which also begins the attempts at further providers.

The answer of each may be lost although the statement was carried out. Then it is repeated, after `WAIT_FOR`.
`CLAIM` finds its own claims by its token; `STARTED` finds what `START_ATTEMPTS` or `CLAIM_AND_START` had begun.
"""

from __future__ import annotations

from sqlalchemy import TextClause, text

from notifier.store import binds

_TOKEN = binds.uuid("token")

# Runs before a statement is repeated: if the server is still executing the first one, that ends first.
WAIT_FOR: TextClause = text("""
SELECT id FROM states WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
""").bindparams(binds.IDS)

# Columns of `messages AS m` and `states AS n` that `_OF_CLAIM` uses.
_BOTH = """m.*, n.status, n.is_test, n.claim, n.crash_count, n.attempt_count, n.replayed_at, n.replayed_attempts"""

# Columns of `NotificationToSend`, except the number of the claim, from `_BOTH` as `n`. `tries` counts calls; an
# attempt that was begun and not called (see `GIVE_BACK`) does not count.
_OF_CLAIM = """
  n.id, n.producer, n.channel, n.lane, n.recipient, n.template, n.locale, n.context, n.sealed, n.secrets, n.sender,
  n.reply_to, n.expires_at, n.on_unknown, n.attachments, n.traceparent, n.is_test, n.attempt_count,
  n.attempt_count - n.replayed_attempts - CASE WHEN n.attempt_count = n.replayed_attempts THEN 0 ELSE (
    SELECT count(*)::int FROM attempts AS a WHERE a.notification_id = n.id AND a.number > n.replayed_attempts
    AND a.outcome = 'unavailable' AND a.reason = 'lease_expired') END AS tries,
  extract(epoch FROM now() - greatest(n.accepted_at, n.send_at, n.replayed_at)) AS age_seconds,
  extract(epoch FROM n.expires_at - now()) AS seconds_to_expiry"""

# A row that is `sending` under the same token was claimed by this very statement, whose answer was lost. It is
# returned again, with the same number and a whole lease. Each run of a task has a token of its own.
CLAIM: TextClause = text(f"""
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
  RETURNING {_BOTH}, n.reason
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason)
  SELECT id, 'status', status, reason FROM claimed WHERE is_new OR status = 'expired'
)
SELECT {_OF_CLAIM}, n.claim, n.crash_count
FROM claimed AS n WHERE n.status = 'sending' ORDER BY n.id
""").bindparams(binds.IDS, _TOKEN)  # noqa: S608 - constants joined with constants

# Only for notifications that a worker had in hand when it died.
CONFIRM_CLAIMS: TextClause = text("""
UPDATE states AS n SET confirmed_claim = n.claim
FROM unnest(:ids) AS w(id) WHERE n.id = w.id AND CASE
  WHEN n.status = 'sending' AND n.claim_token = :token THEN true END
""").bindparams(binds.IDS, _TOKEN)

_WANTED = """
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
    id uuid, claim int, number int, provider text, hashes bytea[], sender text, category text, exempt boolean,
    expires_at timestamptz, template_version text, sender_address text)
"""

# The row has what is sent before the call is made: later the template or the sender may have changed.
_INSERT = "INSERT INTO attempts (notification_id, number, provider, template_version, sender_address)"

# Suppressions are looked up here and not with the claim: only now are the sender identity and the template known,
# it costs no further statement, and an opt-out of a moment ago counts. LIMIT 1 makes the planner look up row by
# row, however small it believes the table to be.
_SUPPRESSION = """LATERAL (
    SELECT CASE s.reason WHEN 'manual' THEN 'operator' ELSE s.reason END AS reason,
      format('%s, since %s, by %s', s.scope, to_char(s.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), s.source)
        AS detail
    FROM suppressions AS s
    WHERE s.address_hash = ANY(w.hashes) AND s.lifted_at IS NULL AND CASE
      WHEN s.expires_at <= now() THEN false
      WHEN w.exempt THEN s.scope = 'global' AND s.reason <> ALL(:wishes)
      ELSE s.scope IN ('global', w.sender, w.category) END
    LIMIT 1
  ) AS s"""

START_ATTEMPTS: TextClause = text(f"""
WITH wanted AS MATERIALIZED ({_WANTED}), barred AS MATERIALIZED (
  SELECT w.id, w.claim, CASE WHEN w.expires_at <= now() THEN 'expired' ELSE 'suppressed' END AS status,
    CASE WHEN w.expires_at <= now() THEN 'expired' ELSE s.reason END AS reason,
    CASE WHEN w.expires_at <= now() THEN NULL ELSE s.detail END AS detail
  FROM wanted AS w LEFT JOIN {_SUPPRESSION} ON true
  WHERE w.expires_at <= now() OR s.reason IS NOT NULL
), held AS (
  UPDATE states AS n SET attempt_count = r.number
  FROM wanted AS r
  WHERE n.id = r.id AND r.id NOT IN (SELECT id FROM barred) AND CASE
    -- No row, no call: test notifications go to the simulator, and all others do not.
    WHEN n.is_test <> (r.provider = :simulator) THEN false
    WHEN n.claim = r.claim AND n.status = 'sending' AND n.due_at > now() + make_interval(secs => :margin)
    -- The caller gives the attempt's number, so a statement that arrives late or twice starts nothing.
    THEN n.attempt_count = r.number - 1 END
  RETURNING n.id, n.claim, r.number, r.provider, r.template_version, r.sender_address
), started AS (
  {_INSERT}
  SELECT id, number, provider, template_version, sender_address FROM held
), stopped AS (
  UPDATE states AS n SET status = b.status, reason = b.reason, detail = b.detail,
    due_at = NULL, updated_at = now()
  FROM barred AS b
  WHERE n.id = b.id AND CASE WHEN n.claim = b.claim AND n.status = 'sending' THEN true END
  RETURNING n.id, n.status, n.reason, n.detail
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason, detail)
  SELECT id, 'status', status, reason, detail FROM stopped
)
SELECT id, claim, number, provider FROM held
""").bindparams(binds.texts("wishes"))  # noqa: S608 - constants joined with constants

# A notification is new if nobody has touched it since the intake accepted it. Any change sets `updated_at`. What
# was dispatched again is claimed before anybody looks into it, because its first worker may have died of it.
READ_QUEUED: TextClause = text(f"""
SELECT {_OF_CLAIM}, n.claim + 1 AS claim,
  n.claim = 0 AND n.updated_at = n.accepted_at AND n.attachments IS NULL
    AND coalesce(n.expires_at > now(), true) AS is_new
FROM (
  SELECT {_BOTH}, n.updated_at FROM unnest(:ids) AS w(id)
  JOIN states AS n ON n.id = w.id AND CASE WHEN n.status = 'queued' THEN true END
  JOIN messages AS m ON m.id = n.id
) AS n
ORDER BY n.id
""").bindparams(binds.IDS)  # noqa: S608 - constants joined with constants

# Claims what `READ_QUEUED` had found and begins its first attempt; the lease begins here. `claim` of a row is the
# number that the claim gets. Rows come in the order of their ids, so that two tasks with the same ids wait for
# each other instead of deadlocking. No `number` in the answer: it is suppressed now, and no attempt was begun.
CLAIM_AND_START: TextClause = text(f"""
WITH wanted AS MATERIALIZED ({_WANTED}), judged AS MATERIALIZED (
  SELECT w.id, w.claim, w.number, w.provider, w.template_version, w.sender_address, w.expires_at,
    s.reason, s.detail
  FROM wanted AS w LEFT JOIN {_SUPPRESSION} ON true
), moved AS (
  UPDATE states AS n SET
    status = CASE WHEN r.expires_at <= now() THEN 'expired' WHEN r.reason IS NOT NULL THEN 'suppressed'
      ELSE 'sending' END,
    reason = CASE WHEN r.expires_at <= now() THEN 'expired' ELSE r.reason END,
    detail = CASE WHEN r.expires_at <= now() THEN NULL ELSE r.detail END,
    claim = r.claim,
    claim_token = :token,
    attempt_count = CASE WHEN r.expires_at <= now() OR r.reason IS NOT NULL THEN n.attempt_count ELSE r.number END,
    due_at = CASE WHEN r.expires_at <= now() OR r.reason IS NOT NULL THEN NULL
      ELSE now() + make_interval(secs => :lease) END,
    updated_at = now()
  FROM judged AS r WHERE n.id = r.id AND CASE
    -- No row, no call: test notifications go to the simulator, and all others do not.
    WHEN n.is_test <> (r.provider = :simulator) THEN false
    WHEN n.status = 'queued' AND n.claim = r.claim - 1 THEN n.attempt_count = r.number - 1 END
  RETURNING n.id, n.status, n.reason, n.detail, n.claim, r.number, r.provider, r.template_version, r.sender_address
), started AS (
  {_INSERT}
  SELECT id, number, provider, template_version, sender_address FROM moved WHERE status = 'sending'
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason, detail)
  SELECT id, 'status', status, reason, detail FROM moved
)
SELECT id, claim, CASE WHEN status = 'sending' THEN number END AS number, provider
FROM moved WHERE status <> 'expired'
""").bindparams(binds.texts("wishes"), _TOKEN)  # noqa: S608 - constants joined with constants

# Finds, after a lost answer, what `START_ATTEMPTS` or, under `token`, `CLAIM_AND_START` had begun.
STARTED: TextClause = text("""
SELECT n.id, n.claim, a.number, a.provider
FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, claim int, number int, provider text)
JOIN states AS n ON n.id = r.id AND CASE
  WHEN n.claim = r.claim AND n.status = 'sending' AND n.due_at > now() + make_interval(secs => :margin)
  THEN n.attempt_count = r.number AND (:token IS NULL OR n.claim_token = :token) END
JOIN attempts AS a ON a.notification_id = r.id AND a.number = r.number
  AND CASE WHEN a.provider = r.provider THEN a.outcome IS NULL END
""").bindparams(_TOKEN)
