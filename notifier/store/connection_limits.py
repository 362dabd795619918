"""How many connections PostgreSQL allows us, and how many are open."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, text

from notifier.store.engine import transaction

# Every role sees the database and role of every connection in this view; its other columns are restricted.
_TIGHTEST = text("""
    WITH used AS (
        SELECT count(*) AS by_all,
               count(*) FILTER (WHERE usename = current_user) AS by_role,
               count(*) FILTER (WHERE datname = current_database()) AS by_database
        FROM pg_stat_activity WHERE usename IS NOT NULL
    ),
    limits AS (
        SELECT 'max_connections' AS name, by_all AS used,
               current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - coalesce(current_setting('reserved_connections', true)::int, 0) AS allowed
        FROM used
        UNION ALL
        SELECT 'the role''s limit', by_role, rolconnlimit FROM used, pg_roles
        WHERE rolname = current_user AND rolconnlimit >= 0
        UNION ALL
        SELECT 'the database''s limit', by_database, datconnlimit FROM used, pg_database
        WHERE datname = current_database() AND datconnlimit >= 0
    )
    SELECT name, allowed, used FROM limits ORDER BY allowed - used LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limit that leaves the fewest connections free."""

    #: The setting behind it: max_connections, the role's limit or the database's.
    name: str
    #: Without the connections reserved for superusers.
    allowed: int
    #: Connections of everyone whom this limit counts.
    used: int


def connection_limits(engine: Engine) -> ConnectionLimits:
    """The tightest limit. Raises `ServiceUnavailable` if the database cannot be asked now."""
    with transaction(engine) as connection:
        row = connection.execute(_TIGHTEST).one()
    return ConnectionLimits(row.name, row.allowed, row.used)
