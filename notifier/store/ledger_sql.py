"""The SQL statements of the ledger.

Each takes its rows as one JSON array, so its text does not change with the size of a batch and Postgres plans it
once. All times that a statement writes are the same: `now()` is the transaction's.

A statement that changes a notification locks and writes its row of `states`. The row of `messages` is written only
to wipe secrets, after that lock.

Conditions on `status` stand inside `CASE`, so that the planner finds rows by id and not by these conditions.
Without statistics it takes `status = 'queued'` to be rare, and would read the whole backlog for every claim.

A message's secrets end with it: the statement that marks it as sent, or stops it for good, wipes them. A trigger
makes a callback for each change of `status`: see `ledger`.
"""

from __future__ import annotations

from sqlalchemy import TextClause, text

from notifier.store import binds
from notifier.store.notification_rules import GONE


def wipe(moved: str) -> str:
    """An UPDATE of `messages` that wipes the secrets of those in `moved`, a query with `id` and `has_secrets`.

    Sealed secrets are a column of their own, plain ones are members of the context. An empty `secret_names` then
    means that the message had secrets and cannot be sent again.
    """
    return f"""
  UPDATE messages AS m SET context = m.context - m.secret_names, secrets = NULL, secret_names = '{{}}'
  FROM {moved} AS ended
  WHERE ended.has_secrets AND m.id = ended.id AND CASE WHEN cardinality(m.secret_names) > 0 THEN true END"""


# No session waits long for a key that another session is writing, because that session may stand still. The rows
# are read after the setting, so it holds before the first row is written, and until the transaction ends.
# Rows are written in the order of keys, then in the order of ids, so that two sessions do not deadlock.
_ACCEPT = """
WITH patience AS MATERIALIZED (
  SELECT set_config('lock_timeout', '500ms', true)
), incoming AS MATERIALIZED (
  SELECT r.* FROM patience, json_to_recordset(CAST(:rows AS json)) AS r(
    position int, id uuid, producer text, key text, idempotency_key text, body_hash text, channel text, lane text,
    recipient text, address text, address_hash bytea, template text, template_version text, locale text,
    context jsonb, sealed bytea, secrets bytea, secret_names text[], sender text, reply_to text,
    reference text, metadata jsonb, send_at timestamptz, expires_at timestamptz, callback_url text,
    callback_statuses text[], on_unknown text, redispatch int, attachments uuid[], is_test boolean,
    key_owner text, proof text, sent_by text, traceparent text, note text)
), fresh AS (
  INSERT INTO idempotency_keys (producer, key, body_hash, notification_id)
  SELECT coalesce(key_owner, producer), key, decode(body_hash, 'hex'), id FROM incoming
  ON CONFLICT DO NOTHING
  RETURNING producer, key, notification_id
), stored AS (
  INSERT INTO messages (
    id, producer, idempotency_key, channel, lane, recipient, address, address_hash, template, template_version,
    locale, context, sealed, secrets, secret_names, sender, reply_to, reference, metadata, send_at, expires_at,
    callback_url, on_unknown, attachments, proof, sent_by, traceparent)
  SELECT
    r.id, r.producer, r.idempotency_key, r.channel, r.lane, r.recipient, r.address, r.address_hash, r.template,
    r.template_version, r.locale, r.context, r.sealed, r.secrets, r.secret_names, r.sender, r.reply_to,
    r.reference, r.metadata, r.send_at, r.expires_at, r.callback_url, r.on_unknown, r.attachments, r.proof,
    r.sent_by, r.traceparent
  FROM incoming AS r
  JOIN fresh ON fresh.producer = coalesce(r.key_owner, r.producer) AND fresh.key = r.key
    AND fresh.notification_id = r.id
  ORDER BY r.id, r.position
  ON CONFLICT (id) DO NOTHING
  RETURNING id, producer, coalesce(idempotency_key, id::text) AS key
), accepted AS MATERIALIZED (
  SELECT DISTINCT ON (stored.id) r.position, r.id, r.channel, r.lane, r.callback_statuses,
    r.note, coalesce(r.is_test, false) AS is_test, r.secret_names IS NOT NULL AS has_secrets,
    CASE WHEN r.expires_at <= now() THEN 'expired' WHEN r.send_at > now() THEN 'scheduled' ELSE 'queued' END
      AS status,
    CASE WHEN r.expires_at <= now() THEN 'expired' END AS reason,
    CASE WHEN r.expires_at <= now() THEN NULL
         WHEN r.send_at > now() THEN r.send_at
         ELSE now() + make_interval(secs => r.redispatch) END AS due_at
  FROM stored JOIN incoming AS r ON r.id = stored.id AND r.producer = stored.producer AND r.key = stored.key
  JOIN fresh ON fresh.producer = coalesce(r.key_owner, r.producer) AND fresh.key = r.key
    AND fresh.notification_id = r.id
  ORDER BY stored.id, r.position
), begun AS (
  INSERT INTO states (id, channel, lane, status, reason, due_at, callback_statuses, is_test, has_secrets)
  SELECT id, channel, lane, status, reason, due_at, callback_statuses, is_test, has_secrets FROM accepted
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason, detail)
  SELECT id, 'accepted', status, reason, note FROM accepted
)
SELECT position, id, channel, lane, status FROM accepted
"""

ACCEPT: TextClause = text(_ACCEPT)
# For many rows, because joining them row by row would take quadratic time. The comment makes the text different:
# PostgreSQL keeps one plan for each text.
ACCEPT_MANY: TextClause = text(f"/* many */ {_ACCEPT}")
JOIN_BY_HASH: TextClause = text("SET LOCAL enable_hashjoin = on")
JOIN_BY_ID: TextClause = text("SET LOCAL enable_hashjoin = off")

# A separate statement, so that it sees what another intake committed meanwhile.
FIND_KEYS: TextClause = text("""
SELECT k.producer, k.key, k.body_hash, k.notification_id, EXISTS (
    SELECT 1 FROM messages AS m JOIN states AS n ON n.id = m.id WHERE m.id = k.notification_id
    AND (m.producer || CASE WHEN n.is_test THEN :test ELSE '' END <> k.producer
      OR coalesce(m.idempotency_key, m.id::text) <> k.key)) AS id_taken
FROM idempotency_keys AS k
JOIN (SELECT DISTINCT producer, key FROM json_to_recordset(CAST(:rows AS json)) AS r(producer text, key text)) AS r
  ON k.producer = r.producer AND k.key = r.key
""")

FORGET_KEYS: TextClause = text("""
DELETE FROM idempotency_keys AS k
USING json_to_recordset(CAST(:rows AS json)) AS r(producer text, key text, id uuid)
WHERE k.producer = r.producer AND k.key = r.key AND k.notification_id = r.id
""")

#: Maximum number of duplicates of one notification that become events.
LISTED_DUPLICATES = 100

REJECT: TextClause = text("""
INSERT INTO rejected_messages (id, queue, producer, broker_user, body, body_size, entry, headers, sealed, faults,
                               redelivered)
VALUES (:id, :queue, :producer, :broker_user, :body, :body_size, :entry, CAST(:headers AS jsonb), :sealed,
        CAST(:faults AS jsonb), :redelivered)
""")

# For notifications whose task could not be published, or for which a worker has no room.
REQUEUE_SOON: TextClause = text("""
UPDATE states AS n SET due_at = now() + make_interval(secs => :seconds)
FROM unnest(:ids) AS w(id) WHERE n.id = w.id AND CASE WHEN n.status = 'queued' THEN true END
""").bindparams(binds.IDS)

_RESULTS = """
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
    id uuid, claim int, status text, reason text, detail text, due_in_seconds double precision,
    template_version text, number int, outcome text, provider text, code text, subject text,
    provider_message_id text, id_space text, proof text)
"""

# A result replaces the "unknown" of the sweep. A look-up does not say when the call ended.
_COMPLETE = """
  UPDATE attempts AS a SET
    finished_at = CASE WHEN r.proof = 'look_up' THEN coalesce(a.finished_at, now()) ELSE now() END,
    outcome = r.outcome, reason = r.reason, code = r.code, subject = r.subject,
    detail = r.detail, provider_message_id = r.provider_message_id
  FROM results AS r
  WHERE a.notification_id = r.id AND a.number = r.number
    AND CASE WHEN a.outcome IS NULL OR a.outcome = 'unknown' THEN true END
"""

FINISH_ATTEMPTS: TextClause = text(f"WITH results AS MATERIALIZED ({_RESULTS}) {_COMPLETE}")

_MOVED = """
  UPDATE states AS n SET
    status = r.status,
    reason = r.reason,
    detail = r.detail,
    due_at = now() + make_interval(secs => r.due_in_seconds),
    sent_version = coalesce(r.template_version, n.sent_version),
    provider = coalesce(r.provider, n.provider),
    -- Another provider's answer takes the id with it.
    provider_message_id = coalesce(r.provider_message_id,
      CASE WHEN n.provider = coalesce(r.provider, n.provider) THEN n.provider_message_id END),
    sent_at = CASE WHEN r.status = 'sent' THEN now() ELSE n.sent_at END,
    updated_at = now()
  FROM results AS r
  WHERE n.id = r.id AND CASE
    WHEN r.status = 'sent' AND n.status = ANY(:before_sent) THEN true
    WHEN n.claim = r.claim AND n.status = 'sending' THEN true
    -- The sweep was faster: what we know now replaces its guess.
    WHEN n.claim = r.claim AND n.status = 'unknown' AND r.status = ANY(:after_unknown) THEN true END
  RETURNING n.id, n.status, n.reason, n.detail, n.has_secrets, r.number
"""

_WIPED = wipe("(SELECT id, has_secrets FROM moved WHERE status = 'sent')")

_NOTED = """
  INSERT INTO events (notification_id, kind, status, reason, attempt, detail)
  SELECT id, 'status', status, reason, number, detail FROM moved
"""

_STATUSES = binds.texts("before_sent"), binds.texts("after_unknown")

FINISH: TextClause = text(f"""
WITH results AS MATERIALIZED ({_RESULTS}), completed AS ({_COMPLETE}), moved AS ({_MOVED}), wiped AS ({_WIPED})
{_NOTED}
""").bindparams(*_STATUSES)

# For claims without a call. An attempt may have been begun all the same if the answer to its start was lost; it is
# closed, because under the current claim its number is ours. If the sweep has called it unknown, this corrects
# that. `token`: if it is not known whether the claim was made, the claim is ours if it has this token.
GIVE_BACK: TextClause = text(f"""
WITH results AS MATERIALIZED (
  SELECT r.* FROM ({_RESULTS}) AS r JOIN states AS n ON n.id = r.id
    AND CASE WHEN :token IS NULL THEN true ELSE n.claim_token = :token END
), closed AS (
  UPDATE attempts AS a SET finished_at = now(), outcome = 'unavailable', reason = 'lease_expired',
    subject = 'provider', code = NULL, detail = r.detail
  FROM results AS r JOIN states AS n ON n.id = r.id AND n.claim = r.claim
  WHERE a.notification_id = r.id AND a.number = r.number
    AND CASE WHEN a.outcome IS NULL OR a.outcome = 'unknown' THEN true END
  RETURNING a.notification_id, a.number
), moved AS ({_MOVED})
INSERT INTO events (notification_id, kind, status, reason, attempt, detail)
SELECT moved.id, 'status', moved.status, moved.reason, closed.number, moved.detail
FROM moved LEFT JOIN closed ON closed.notification_id = moved.id
""").bindparams(*_STATUSES, binds.uuid("token"))

# Like FINISH, for providers whose message ids stand for one message each. A message belongs to one attempt. If it
# is another attempt's, or the attempt was accepted under another id, the result is returned instead of written,
# and `provider_messages.assign_message` decides. Locks are taken in one order: states by id, then provider
# messages, then attempts. So the changes of `states` come first.
FINISH_WITH_MESSAGES: TextClause = text(f"""
WITH given AS MATERIALIZED ({_RESULTS}), locked AS MATERIALIZED (
  SELECT n.id FROM given AS r JOIN states AS n ON n.id = r.id
  WHERE r.id_space IS NOT NULL ORDER BY n.id FOR UPDATE OF n
), held AS (
  INSERT INTO provider_messages AS m (id_space, provider_message_id, notification_id, attempt, proof)
  SELECT DISTINCT ON (r.id_space, r.provider_message_id)
    r.id_space, r.provider_message_id, r.id, r.number, r.proof
  FROM given AS r JOIN locked ON locked.id = r.id
  WHERE r.id_space IS NOT NULL ORDER BY r.id_space, r.provider_message_id, r.id
  ON CONFLICT (id_space, provider_message_id) DO UPDATE SET proof = CASE
    WHEN m.proof = 'look_up' AND m.notification_id = excluded.notification_id AND m.attempt = excluded.attempt
    THEN excluded.proof ELSE m.proof END
  RETURNING id_space, provider_message_id, notification_id, attempt
), results AS MATERIALIZED (
  SELECT r.* FROM given AS r
  LEFT JOIN held AS m ON m.id_space = r.id_space AND m.provider_message_id = r.provider_message_id
  WHERE r.id_space IS NULL OR (m.notification_id = r.id AND m.attempt = r.number)
), completed AS ({_COMPLETE} RETURNING a.notification_id, a.number), moved AS ({_MOVED}), wiped AS ({_WIPED}),
noted AS ({_NOTED} RETURNING notification_id)
SELECT r.id, r.number FROM given AS r JOIN attempts AS a ON a.notification_id = r.id AND a.number = r.number
WHERE (SELECT count(*) FROM noted) IS NOT NULL AND r.id_space IS NOT NULL
  AND NOT EXISTS (SELECT FROM completed AS c WHERE c.notification_id = r.id AND c.number = r.number)
  AND (a.outcome IS DISTINCT FROM 'accepted' OR a.provider_message_id IS DISTINCT FROM r.provider_message_id)
""").bindparams(*_STATUSES)

# Leases that ended because their workers died. If an attempt is open, nobody knows whether the provider took the
# message. Otherwise no call was made, and it is tried again. A notification that keeps killing its workers is
# poison: it fails, or is held if a provider may have it. The first lease that ends always counts as a death. Later
# ones count only if the worker had confirmed its claim, because lost answers, however many, are not poison.
END_LEASES: TextClause = text("""
WITH ended AS MATERIALIZED (
  SELECT id, crash_count, crash_count = 0 OR coalesce(confirmed_claim = claim, false) AS is_heard
  FROM states
  WHERE due_at <= now() AND status = 'sending' ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
), closed AS (
  UPDATE attempts AS a SET finished_at = now(), outcome = 'unknown', reason = 'outcome_unknown',
    detail = 'the worker went away before it recorded the answer'
  FROM ended WHERE a.notification_id = ended.id AND a.outcome IS NULL
  RETURNING a.notification_id
), counted AS (
  SELECT ended.id, is_heard, c.notification_id IS NOT NULL AS is_unknown,
    crash_count + (is_heard OR c.notification_id IS NOT NULL)::int AS crashes
  FROM ended LEFT JOIN closed AS c ON c.notification_id = ended.id
), judged AS (
  SELECT *, crashes >= :max_crashes AS is_poison FROM counted
), moved AS (
  UPDATE states AS n SET
    crash_count = j.crashes,
    status = CASE WHEN j.is_unknown THEN 'unknown' WHEN j.is_poison THEN 'failed' ELSE 'retrying' END,
    reason = CASE WHEN j.is_unknown THEN 'outcome_unknown' WHEN j.is_poison THEN 'technical_error'
                  ELSE 'lease_expired' END,
    detail = CASE WHEN j.is_poison THEN 'the worker that held it went away, ' || j.crashes || ' times'
                  WHEN j.is_unknown THEN 'the worker went away before it recorded the answer'
                  WHEN j.is_heard THEN 'the worker went away before it called a provider'
                  ELSE 'its lease ended before its worker had heard of the claim' END,
    due_at = CASE WHEN j.is_unknown THEN now() + make_interval(secs => :unknown_after)
                  WHEN NOT j.is_poison THEN now() END,
    updated_at = now()
  FROM judged AS j
  WHERE n.id = j.id AND n.status = 'sending'
  RETURNING n.id, n.status, n.reason, n.detail, nullif(n.attempt_count, 0) AS attempt
)
INSERT INTO events (notification_id, kind, status, reason, attempt, detail)
SELECT id, 'status', status, reason, attempt, detail FROM moved
""")

# Unknown outcomes and missing reports, to ask the provider about; due again if nobody settles them.
TAKE_UNANSWERED: TextClause = text("""
WITH due AS (
  SELECT id, status AS old FROM states WHERE due_at <= now() AND status IN ('unknown', 'sent')
  ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE states AS n SET due_at = now() + make_interval(secs =>
  CASE WHEN due.old = 'unknown' THEN :unknown_again_after ELSE :receipt_again_after END)
FROM due WHERE n.id = due.id AND n.status = due.old
RETURNING n.id, n.channel, n.lane
""")

_OF_UNKNOWN = """
  n.id, m.channel, m.lane, m.recipient, m.template, m.locale, m.context, m.sealed, m.secrets, m.sender,
  m.on_unknown, n.claim, n.crash_count, a.number, a.provider, a.template_version, a.sender_address, a.started_at,
  a.finished_at, now() AS looked_at"""

UNKNOWN: TextClause = text(f"""
SELECT {_OF_UNKNOWN}
FROM states AS n
JOIN messages AS m ON m.id = n.id
JOIN attempts AS a ON a.notification_id = n.id AND a.outcome = 'unknown'
WHERE n.id = ANY(:ids) AND n.status = 'unknown'
  -- An operator decides about those: a task of the first life may still be in the broker.
  AND n.reason IS DISTINCT FROM 'restored'
ORDER BY n.id, a.number
""").bindparams(binds.IDS)

_PROVIDERS = binds.texts("providers")

# The same text may have gone to the same number before, or be on its way to it just now. (A row from before there
# were hashes has none until it is resealed; it was sent long ago.)
RIVALS: TextClause = text(f"""
SELECT {_OF_UNKNOWN}
FROM messages AS m JOIN states AS n ON n.id = m.id JOIN attempts AS a ON a.notification_id = m.id
WHERE m.address_hash = (SELECT address_hash FROM messages WHERE id = :id)
  AND (m.id <> :id OR a.number <> :number) AND a.provider = ANY(:providers)
  AND (a.outcome IS NULL OR a.outcome = 'unknown')
  AND a.started_at < coalesce(CAST(:finished_at AS timestamptz), now()) + make_interval(secs => :near)
  AND coalesce(a.finished_at, now()) + make_interval(secs => :near) > :started_at
ORDER BY n.id, a.number
""").bindparams(_PROVIDERS)

# The second part finds further ids of other attempts by id, such as those of the parts of a long text.
KNOWN_IDS: TextClause = text("""
SELECT now() AS looked_at, ARRAY(
  SELECT a.provider_message_id FROM messages AS m JOIN attempts AS a ON a.notification_id = m.id
  WHERE m.address_hash = (SELECT address_hash FROM messages WHERE id = :id)
    AND (m.id <> :id OR a.number <> :number) AND a.provider = ANY(:providers)
    AND a.provider_message_id IS NOT NULL AND a.started_at > :started_at - interval '1 day'
  UNION
  SELECT m.provider_message_id FROM provider_messages AS m
  WHERE m.id_space = :id_space AND m.provider_message_id = ANY(:found)
    AND (m.notification_id <> :id OR m.attempt <> :number)
) AS known_ids
""").bindparams(_PROVIDERS, binds.texts("found"))

# For outcomes that no look-up settles: no provider has the message, or none can be asked, so the template's policy
# decides. `hold` leaves no due_at, so only a report or an operator changes it again. The same holds for poison,
# and for a message that lost its secrets when a look-up found a message for it that was another attempt's. What is
# held already is not held again.
SETTLE_UNKNOWN: TextClause = text(f"""
WITH wanted AS (
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, claim int, resend boolean, detail text)
), moved AS (
  UPDATE states AS n SET
    status = CASE WHEN w.resend AND NOT {GONE} THEN 'retrying' ELSE n.status END,
    due_at = CASE WHEN w.resend AND NOT {GONE} THEN now() END,
    detail = CASE WHEN w.resend AND {GONE} THEN :gone ELSE w.detail END,
    updated_at = now()
  FROM wanted AS w JOIN messages AS m ON m.id = w.id
  WHERE n.id = w.id AND n.status = 'unknown' AND n.claim = w.claim AND n.due_at IS NOT NULL
  RETURNING n.id, n.status, n.reason, n.detail, n.status = 'retrying' AS resend
)
INSERT INTO events (notification_id, kind, status, reason, detail)
SELECT id, CASE WHEN resend THEN 'status' ELSE 'held' END, CASE WHEN resend THEN status END, reason, detail
FROM moved
""")

QUEUE_DUE: TextClause = text("""
WITH due AS MATERIALIZED (
  SELECT n.id, n.status AS old, m.expires_at, m.accepted_at, m.send_at
  FROM states AS n JOIN messages AS m ON m.id = n.id
  WHERE n.due_at <= now() AND n.status IN ('scheduled', 'retrying', 'queued')
  ORDER BY n.due_at LIMIT :limit FOR UPDATE OF n SKIP LOCKED
), moved AS (
  UPDATE states AS n SET
    status = CASE WHEN due.expires_at <= now() THEN 'expired' ELSE 'queued' END,
    reason = CASE WHEN due.expires_at <= now() THEN 'expired' ELSE n.reason END,
    -- A backlog is not published over and over: the longer it has waited already, the later the next time.
    due_at = CASE WHEN due.expires_at <= now() THEN NULL ELSE now() + greatest(
      make_interval(secs => CASE n.lane WHEN 'urgent' THEN :redispatch_urgent
        WHEN 'normal' THEN :redispatch_normal ELSE :redispatch_bulk END),
      CASE WHEN due.old = 'queued' THEN least(now() - greatest(due.accepted_at, due.send_at, n.replayed_at),
        interval '1 hour') END) END,
    updated_at = now()
  FROM due WHERE n.id = due.id AND n.status = due.old
  RETURNING n.id, n.channel, n.lane, n.status, n.reason, n.crash_count, due.old
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason, detail)
  SELECT id, CASE WHEN status = old THEN 'redispatched' ELSE 'status' END, nullif(status, old), reason,
    CASE WHEN status = old THEN 'no worker had taken it: given to the broker again' END
  FROM moved
)
SELECT id, channel, lane, crash_count > 0 AS alone FROM moved WHERE status = 'queued'
""")
