-- What the programs may do, in a role of their own: for psql, as the owner of the tables, after each `notifier db upgrade`.
-- The variable APP_PASSWORD of the environment becomes the role's password.
\getenv password APP_PASSWORD
SELECT 'CREATE ROLE notifier_app LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'notifier_app') \gexec
ALTER ROLE notifier_app PASSWORD :'password';

GRANT SELECT ON alembic_version TO notifier_app;
GRANT SELECT, INSERT ON events TO notifier_app;
GRANT SELECT, INSERT, DELETE ON idempotency_keys TO notifier_app;
GRANT SELECT, INSERT, UPDATE ON messages, states, attempts, operator_records, api_keys, suppressions, retention_marks,
  upkeep_runs, database_identity, jobs, provider_states, circuits, rate_slots, callback_endpoints, bounce_alarms
  TO notifier_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON provider_messages, provider_outcomes, usage_counts, rejected_messages,
  attachments, callbacks, callback_attempts, hard_bounces, held_suppressions, unread_bounces, daily_statistics,
  console_sessions, minute_counts, failed_counts, hash_keys, recurring_notifications, recurring_recipients,
  recurring_runs TO notifier_app;
