"""The statements of operators' writes. As in `statements`, `now()` is the time of the transaction."""

from __future__ import annotations

from sqlalchemy import TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, UUID
from sqlalchemy.types import Text

from notifier.store.wiping import GONE, wipe

_IDS = bindparam("ids", type_=ARRAY(UUID(as_uuid=False)))

BEGIN: TextClause = text("""
INSERT INTO operator_records (id, operator, action, selection, reason)
VALUES (:id, :operator, :action, CAST(:selection AS jsonb), :reason)
RETURNING at
""")

NOTE_RESULT: TextClause = text("""
UPDATE operator_records SET result = CAST(:result AS jsonb),
  finished_at = CASE WHEN :is_finished THEN now() ELSE finished_at END
WHERE id = :id
""")

# The rows are locked by the page's SELECT; the status is asked again all the same, so that no move is unlawful
# whoever calls this. A spaced retry is due later, and its deadline counts from when it is due.
MOVE: TextClause = text(f"""
WITH given AS MATERIALIZED (
  SELECT id, greatest(now(), CAST(:start AS timestamptz)
      + make_interval(secs => (:offset + row_number() OVER (ORDER BY id) - 1) * CAST(:pause AS double precision)))
    AS due_at
  FROM unnest(:ids) AS wanted(id)
), moved AS (
  UPDATE notifications AS n SET
    status = CAST(:to AS text),
    reason = 'operator',
    detail = NULL,
    -- What an operator resolves may not have come to its time yet.
    due_at = CASE WHEN :to = 'retrying' THEN greatest(given.due_at, n.send_at) END,
    replayed_at = CASE WHEN :to = 'retrying' THEN given.due_at ELSE n.replayed_at END,
    replayed_attempts = CASE WHEN :to = 'retrying' THEN n.attempt_count ELSE n.replayed_attempts END,
    crash_count = CASE WHEN :to = 'retrying' THEN 0 ELSE n.crash_count END,
    sent_at = CASE WHEN :to = 'sent' THEN now() ELSE n.sent_at END,
    {wipe(":to IN ('sent', 'cancelled')")},
    updated_at = now()
  FROM given WHERE n.id = given.id AND n.status = ANY(:sources)
    -- What was wiped or redacted cannot be sent.
    AND (:to <> 'retrying' OR NOT {GONE})
  RETURNING n.id
), noted AS (
  INSERT INTO events (notification_id, kind, status, reason, detail)
  SELECT moved.id, line.kind, line.status, line.reason, line.detail
  FROM moved CROSS JOIN (VALUES
    (1, 'operator', NULL, NULL, CAST(:detail AS text)),
    (2, 'status', CAST(:to AS text), 'operator', NULL)) AS line(place, kind, status, reason, detail)
  ORDER BY moved.id, line.place
)
SELECT id FROM moved
""").bindparams(_IDS, bindparam("sources", type_=ARRAY(Text())))

MARK_REPLAYED: TextClause = text("""
UPDATE rejected_messages SET replayed_at = now() WHERE id = ANY(:ids)
""").bindparams(_IDS)

PURGE_REJECTED: TextClause = text("""
DELETE FROM rejected_messages WHERE id = ANY(:ids)
""").bindparams(_IDS)
