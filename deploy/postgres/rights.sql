-- Grants the programs and an auditor their rights. Run it as the owner of the tables, after each `notifier db upgrade`:
--   psql postgresql://notifier_owner@localhost/notifier --file=deploy/postgres/rights.sql
-- It makes no role: notifier_app must exist, notifier_auditor may.
\set ON_ERROR_STOP on

BEGIN;
-- In these tables the programs may change only the listed columns. REVOKE also removes grants on a whole table, from an
-- earlier file or made by hand. It is one transaction, so running programs never lack a right.
REVOKE UPDATE ON operator_records, attempts, messages, suppressions, api_keys FROM notifier_app;
GRANT SELECT, INSERT, UPDATE (result, finished_at) ON operator_records TO notifier_app;
GRANT SELECT, INSERT, UPDATE (finished_at, outcome, reason, code, detail, provider_message_id, subject)
  ON attempts TO notifier_app;
GRANT SELECT, INSERT, UPDATE (send_at, recipient, address, address_hash, context, sealed, secrets, secret_names,
  metadata, callback_url) ON messages TO notifier_app;
GRANT SELECT, INSERT, UPDATE (address_hash, lifted_at, lifted_by, lifted_detail) ON suppressions TO notifier_app;
GRANT SELECT, INSERT, UPDATE (expires_at, revoked_at, last_used_at) ON api_keys TO notifier_app;
COMMIT;

GRANT SELECT ON alembic_version TO notifier_app;
GRANT SELECT, INSERT ON events TO notifier_app;
GRANT UPDATE ON callbacks_sequence_seq TO notifier_app;
GRANT SELECT, INSERT, DELETE ON idempotency_keys TO notifier_app;
GRANT SELECT, INSERT, UPDATE ON states, retention_marks, upkeep_runs, database_identity, jobs, provider_states, circuits,
  rate_slots, callback_endpoints, bounce_alarms TO notifier_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON provider_messages, provider_outcomes, usage_counts, rejected_messages,
  attachments, callbacks, callback_attempts, hard_bounces, held_suppressions, unread_bounces, daily_statistics,
  console_sessions, minute_counts, failed_counts, hash_keys, recurring_notifications, recurring_recipients,
  recurring_runs TO notifier_app;

-- The auditor reads no contexts, no rejected bodies and no bytes of attachments.
DO $auditor$
BEGIN
IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'notifier_auditor') THEN
  RETURN;
END IF;
GRANT SELECT ON attempts, events, idempotency_keys, operator_records, suppressions, callbacks, callback_attempts,
  callback_endpoints, daily_statistics, minute_counts, failed_counts, hash_keys, jobs, recurring_runs TO notifier_auditor;
GRANT SELECT (id, producer, idempotency_key, channel, lane, recipient, address_hash, secret_names, template, template_version, locale,
  sender, reply_to, reference, metadata, send_at, expires_at, callback_url, callback_statuses, on_unknown, status, reason,
  detail, due_at, claim, attempt_count, provider, provider_message_id, accepted_at, updated_at, sent_at, attachments,
  is_test, proof, sent_by) ON notifications TO notifier_auditor;
GRANT SELECT (id, producer, name, content_type, size, sha256, uploaded_at, needed_until)
  ON attachments TO notifier_auditor;
GRANT SELECT (id, received_at, queue, producer, broker_user, body_size, entry, faults, redelivered)
  ON rejected_messages TO notifier_auditor;
GRANT SELECT (id, producer, is_test, name, cron, zone, until, channel, lane, template, locale, sender, created_at, paused_at, next_at,
  run_at, run_by_hand, run_accepted, run_refused, run_faults, run_finished_at, note) ON recurring_notifications TO notifier_auditor;
GRANT SELECT (id, recurring_id, position, recipient, address_hash, locale) ON recurring_recipients TO notifier_auditor;
END
$auditor$;
