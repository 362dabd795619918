"""The statement that reschedules notifications."""

from __future__ import annotations

from sqlalchemy import TextClause, text

from notifier.store import binds

# A task for the old time may be in the broker. A claim takes only what is `queued`, so that task finds nothing,
# and the sweep issues another one at the new time. A claim locks and changes the same row of `states`, so
# whichever comes second sees what the first has done. Notifications that were tried are left out: a late report
# moves nothing that is `scheduled`. A time that has passed becomes now, because the delay of a message is counted
# from it.
RESCHEDULE: TextClause = text("""
WITH given AS (
  SELECT greatest(CAST(:send_at AS timestamptz), now()) AS send_at
), moved AS (
  UPDATE states AS n SET status = 'scheduled', reason = 'operator', detail = NULL, due_at = given.send_at,
    updated_at = now()
  FROM given, states AS old JOIN messages AS m ON m.id = old.id
  WHERE n.id = ANY(:ids) AND old.id = n.id AND n.status = ANY(:sources) AND n.attempt_count = 0
    AND coalesce(m.expires_at > given.send_at, true)
  RETURNING n.id, old.status AS old
), put AS (
  UPDATE messages AS m SET send_at = given.send_at FROM given, moved WHERE m.id = moved.id
), kept AS (
  -- Files are kept for some days after their last mail was due.
  UPDATE attachments AS a SET needed_until = given.send_at
  FROM given, moved JOIN messages AS m ON m.id = moved.id
  WHERE a.id = ANY(m.attachments) AND a.needed_until < given.send_at
)
INSERT INTO events (notification_id, kind, status, reason, detail)
SELECT moved.id, line.kind, line.status, line.reason, line.detail
FROM moved CROSS JOIN LATERAL (VALUES
  (1, 'operator', NULL, NULL, CAST(:detail AS text)),
  (2, 'status', 'scheduled', 'operator', NULL)) AS line(place, kind, status, reason, detail)
WHERE line.place = 1 OR moved.old <> 'scheduled'
ORDER BY moved.id, line.place
""").bindparams(binds.IDS, binds.texts("sources"))
