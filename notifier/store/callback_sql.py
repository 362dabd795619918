"""The SQL statements of status callbacks, in the style of `ledger_sql`.

Rows of `callbacks` are made by the triggers on `states`, in the transaction that changes a notification: see
`ledger`.
"""

from __future__ import annotations

from sqlalchemy import TextClause, text

from notifier.store import binds

# Parks what is due for a suspended endpoint. A worker may have some of it in hand: its results still count.
PARK_SUSPENDED: TextClause = text("""
WITH due AS MATERIALIZED (
  SELECT c.id FROM callback_endpoints AS e JOIN callbacks AS c ON c.endpoint = e.endpoint AND c.due_at <= now()
  WHERE e.suspended_at IS NOT NULL LIMIT :limit FOR UPDATE OF c SKIP LOCKED
)
UPDATE callbacks AS c SET state = 'parked', failure = 'suspended', due_at = NULL, settled_at = now()
FROM due WHERE c.id = due.id
""")

# Callbacks are taken endpoint by endpoint, so that no backlog hides another endpoint's, and from each as many as
# there is room for: all workers together have `per_endpoint` in hand at once, or `per_failing` while all its calls
# fail. The endpoints of a producer share the room of `per_producer`; those that have waited longest come first. If
# few are due, the first query finds all of them. Otherwise the second one walks the index from one endpoint to the
# next, past the backlog of each. A callback waits while an earlier one of its notification has not been tried or
# is being called. It does not wait for an earlier one that has failed: a callback that the endpoint refuses would
# delay the rest for a day.
GIVE_OUT: TextClause = text("""
WITH RECURSIVE few AS MATERIALIZED (
  SELECT endpoint FROM callbacks WHERE due_at <= now() AND sequence > 0 AND CAST(:endpoint AS text) IS NULL
  ORDER BY due_at LIMIT 1000
), walked(endpoint) AS (
  (SELECT endpoint FROM callbacks WHERE due_at IS NOT NULL AND (SELECT count(*) FROM few) = 1000
   ORDER BY endpoint LIMIT 1)
  UNION ALL
  SELECT (SELECT c.endpoint FROM callbacks AS c WHERE c.due_at IS NOT NULL AND c.endpoint > e.endpoint
          ORDER BY c.endpoint LIMIT 1)
  FROM walked AS e WHERE e.endpoint IS NOT NULL
), endpoints AS (
  SELECT endpoint FROM walked
  UNION ALL SELECT DISTINCT endpoint FROM few WHERE (SELECT count(*) FROM few) < 1000
  UNION ALL SELECT CAST(:endpoint AS text)
), busy AS MATERIALIZED (
  SELECT producer, count(*) AS calls FROM callbacks
  WHERE state IN ('given', 'calling') AND due_at > now() GROUP BY producer
), waiting AS MATERIALIZED (
  SELECT e.endpoint, f.producer, f.due_at,
    CASE WHEN s.failing_since IS NULL THEN CAST(:per_endpoint AS int) ELSE CAST(:per_failing AS int) END - (
      SELECT count(*) FROM callbacks AS c
      WHERE c.endpoint = e.endpoint AND c.state IN ('given', 'calling') AND c.due_at > now()) AS room
  FROM endpoints AS e
  CROSS JOIN LATERAL (
    SELECT d.producer, d.due_at FROM callbacks AS d WHERE d.endpoint = e.endpoint AND d.due_at <= now()
    ORDER BY d.due_at, d.sequence LIMIT 1) AS f
  LEFT JOIN callback_endpoints AS s ON s.endpoint = e.endpoint
  WHERE s.suspended_at IS NULL
), sharing AS MATERIALIZED (
  SELECT w.endpoint, w.room, CAST(:per_producer AS int) - coalesce(b.calls, 0) AS producers_room,
    count(*) OVER (PARTITION BY w.producer) AS endpoints,
    row_number() OVER (PARTITION BY w.producer ORDER BY w.due_at, w.endpoint) AS place
  FROM waiting AS w LEFT JOIN busy AS b ON b.producer = w.producer
  WHERE w.room > 0
), roomy AS MATERIALIZED (
  SELECT endpoint, least(room, greatest(producers_room / endpoints, 1)) AS room
  FROM sharing WHERE place <= producers_room
), due AS MATERIALIZED (
  SELECT c.id, c.state FROM roomy CROSS JOIN LATERAL (
    SELECT d.id, d.state FROM callbacks AS d
    WHERE d.endpoint = roomy.endpoint AND d.due_at <= now() AND NOT EXISTS (
      SELECT 1 FROM callbacks AS o
      WHERE o.notification_id = d.notification_id AND o.sequence < d.sequence AND (o.state = 'calling'
        OR (o.state IN ('waiting', 'given') AND o.attempt_count = o.replayed_attempts)))
    ORDER BY d.due_at, d.sequence LIMIT roomy.room FOR UPDATE OF d SKIP LOCKED) AS c
), closed AS (
  UPDATE callback_attempts AS a SET finished_at = now(), failure = 'lease_expired'
  FROM due WHERE a.callback_id = due.id AND due.state = 'calling' AND a.finished_at IS NULL
)
UPDATE callbacks AS c SET state = 'given', due_at = now() + make_interval(secs => :again_after)
FROM due WHERE c.id = due.id
RETURNING c.id, c.endpoint
""")

CLAIM: TextClause = text("""
WITH wanted AS MATERIALIZED (
  SELECT c.id FROM callbacks AS c WHERE c.id = ANY(:ids) AND c.state = 'given'
  ORDER BY c.id FOR UPDATE SKIP LOCKED
), claimed AS (
  UPDATE callbacks AS c SET state = 'calling', attempt_count = c.attempt_count + 1,
    due_at = now() + make_interval(secs => :lease)
  FROM wanted WHERE c.id = wanted.id AND c.state = 'given'
  RETURNING c.*
), noted AS (
  INSERT INTO callback_attempts (callback_id, number) SELECT id, attempt_count FROM claimed
)
SELECT c.id, c.sequence, c.notification_id, c.producer, c.endpoint, c.status, c.reason, c.attempt, c.occurred_at,
  c.attempt_count AS number, c.attempt_count - c.replayed_attempts AS tries, m.channel, m.reference, m.metadata,
  m.callback_url, m.traceparent, n.is_test, n.id IS NOT NULL AS is_in_record,
  extract(epoch FROM now() - c.begun_at) AS age_seconds, extract(epoch FROM now()) AS claimed_at
FROM claimed AS c LEFT JOIN messages AS m ON m.id = c.notification_id LEFT JOIN states AS n ON n.id = m.id
ORDER BY c.sequence
""").bindparams(binds.IDS)

# A delivery always counts; any other result counts only while its call is the current one. The endpoint is
# suspended when all calls have failed for long enough and often enough.
RECORD: TextClause = text("""
WITH results AS MATERIALIZED (
  SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS r(
    id uuid, number int, http_status int, failure text, is_endpoints boolean, pause_seconds double precision)
), completed AS (
  UPDATE callback_attempts AS a SET finished_at = now(), http_status = r.http_status, failure = r.failure
  FROM results AS r
  WHERE a.callback_id = r.id AND a.number = r.number AND (a.finished_at IS NULL OR a.failure = 'lease_expired')
), moved AS (
  UPDATE callbacks AS c SET
    state = CASE WHEN r.failure IS NULL THEN 'delivered' WHEN r.pause_seconds IS NULL THEN 'parked'
                 ELSE 'waiting' END,
    failure = r.failure,
    http_status = r.http_status,
    due_at = CASE WHEN r.failure IS NOT NULL THEN now() + make_interval(secs => r.pause_seconds) END,
    settled_at = CASE WHEN r.failure IS NULL OR r.pause_seconds IS NULL THEN now() END
  FROM results AS r
  WHERE c.id = r.id AND CASE
    WHEN r.failure IS NULL AND c.state <> 'delivered' THEN true
    WHEN c.state = 'calling' AND c.attempt_count = r.number THEN true END
  RETURNING c.endpoint, c.producer, r.failure, r.http_status, r.is_endpoints
), counted AS (
  SELECT endpoint, producer, count(*) FILTER (WHERE failure IS NULL) AS delivered,
    count(*) FILTER (WHERE is_endpoints) AS failed, max(failure) FILTER (WHERE is_endpoints) AS failure,
    max(http_status) FILTER (WHERE is_endpoints) AS http_status
  FROM moved GROUP BY endpoint, producer
)
INSERT INTO callback_endpoints AS e
  (endpoint, producer, failing_since, failures, failure, http_status, delivered_count, failed_count)
SELECT endpoint, producer, CASE WHEN delivered = 0 THEN now() END, CASE WHEN delivered = 0 THEN failed ELSE 0 END,
  failure, http_status, delivered, failed
FROM counted WHERE delivered > 0 OR failed > 0 ORDER BY endpoint
ON CONFLICT (endpoint) DO UPDATE SET
  failing_since = CASE WHEN excluded.delivered_count = 0 THEN coalesce(e.failing_since, now()) END,
  failures = CASE WHEN excluded.delivered_count = 0 THEN e.failures + excluded.failed_count ELSE 0 END,
  failure = coalesce(excluded.failure, e.failure),
  http_status = CASE WHEN excluded.failure IS NULL THEN e.http_status ELSE excluded.http_status END,
  suspended_at = CASE
    WHEN excluded.delivered_count = 0 AND e.failing_since < now() - make_interval(secs => :suspend_after)
      AND e.failures + excluded.failed_count >= :suspend_failures THEN coalesce(e.suspended_at, now())
    ELSE e.suspended_at END,
  delivered_count = e.delivered_count + excluded.delivered_count,
  failed_count = e.failed_count + excluded.failed_count,
  updated_at = now()
RETURNING endpoint, producer, suspended_at IS NOT NULL AND suspended_at = now() AS is_suspended_now
""")

# The page's SELECT has locked these rows. A selection by ids also finds delivered callbacks.
REPLAY: TextClause = text("""
UPDATE callbacks SET state = 'waiting', due_at = now(), begun_at = now(), replayed_attempts = attempt_count,
  settled_at = NULL
WHERE id = ANY(:ids) AND state IN ('parked', 'delivered')
""").bindparams(binds.IDS)

RESUME: TextClause = text("""
UPDATE callback_endpoints SET suspended_at = NULL, failing_since = NULL, failures = 0, updated_at = now()
WHERE endpoint = :endpoint AND suspended_at IS NOT NULL RETURNING endpoint
""")

FORGET: TextClause = text("""
WITH old AS MATERIALIZED (
  SELECT id FROM callbacks WHERE settled_at < now() - make_interval(days => :days)
  ORDER BY settled_at LIMIT :limit FOR UPDATE SKIP LOCKED
), attempts AS (
  DELETE FROM callback_attempts AS a USING old WHERE a.callback_id = old.id
)
DELETE FROM callbacks AS c USING old WHERE c.id = old.id
""")

# Suspended endpoints, and callbacks that should have been dispatched or claimed long ago.
STUCK: TextClause = text("""
SELECT 'endpoint_suspended' AS cause, e.endpoint, e.suspended_at AS oldest, e.failure, e.http_status,
  (SELECT count(*) FROM callbacks AS c WHERE c.endpoint = e.endpoint AND c.state = 'parked'
     AND c.failure = 'suspended')::int AS total
FROM callback_endpoints AS e WHERE e.suspended_at IS NOT NULL
UNION ALL
SELECT 'callbacks_late', c.endpoint, min(c.due_at), NULL, NULL, count(*)::int
FROM callbacks AS c LEFT JOIN callback_endpoints AS e ON e.endpoint = c.endpoint
WHERE c.due_at < now() - make_interval(secs => :late) AND e.suspended_at IS NULL
GROUP BY c.endpoint
ORDER BY oldest, endpoint
""")
