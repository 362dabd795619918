-- Makes the programs' role, for docker-compose.yml alone. Run it before rights.sql, as a superuser or a role with CREATEROLE.
-- The environment variable APP_PASSWORD becomes the role's password.
\set ON_ERROR_STOP on
\getenv password APP_PASSWORD
\if :{?password}
\else
DO $$ BEGIN RAISE 'APP_PASSWORD is not set: give the password of notifier_app'; END $$;
\endif
SELECT 'CREATE ROLE notifier_app LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'notifier_app') \gexec
ALTER ROLE notifier_app PASSWORD :'password';
