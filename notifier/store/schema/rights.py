"""What the role of the programs needs on each table, and what it lacks.

`deploy/postgres/rights.sql` grants exactly this; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine, text

from notifier.store.engine import transaction

#: Table → the privileges that programs need on it.
NEEDED: Mapping[str, tuple[str, ...]] = {
    table: tuple(privileges.split(", "))
    for privileges, tables in {
        "SELECT": "alembic_version",
        "SELECT, INSERT": "events",
        "SELECT, INSERT, DELETE": "idempotency_keys",
        "SELECT, INSERT, UPDATE": (
            "messages states attempts operator_records api_keys suppressions retention_marks upkeep_runs "
            "database_identity jobs provider_states circuits rate_slots callback_endpoints bounce_alarms"
        ),
        "SELECT, INSERT, UPDATE, DELETE": (
            "provider_messages provider_outcomes usage_counts rejected_messages attachments callbacks "
            "callback_attempts hard_bounces held_suppressions unread_bounces daily_statistics console_sessions "
            "minute_counts failed_counts hash_keys recurring_notifications recurring_recipients recurring_runs"
        ),
    }.items()
    for table in tables.split()
}

# A table that is not there is the business of `notifier db upgrade`.
_MISSING = text("""
    SELECT needed.name, needed.privilege
    FROM unnest(cast(:tables AS text[]), cast(:privileges AS text[]))
         WITH ORDINALITY AS needed (name, privilege, place)
    WHERE NOT has_table_privilege(to_regclass(needed.name), needed.privilege)
    ORDER BY needed.place
""")
_ROLE = text("SELECT current_user::text, quote_ident(current_user)")


@dataclass(frozen=True, slots=True)
class MissingRights:
    """What a role lacks."""

    role: str
    #: The statements that grant it, for the owner of the tables; none: nothing is missing.
    grants: tuple[str, ...]
    #: The tables in question, in the order of `NEEDED`.
    tables: tuple[str, ...]


def missing_rights(engine: Engine) -> MissingRights:
    """What the engine's role may not do, and programs need. Nothing for the owner of the tables and a superuser.

    Raises `ServiceUnavailable` if the database cannot be asked now."""
    pairs = [(table, privilege) for table, privileges in NEEDED.items() for privilege in privileges]
    with transaction(engine) as connection:
        role, quoted = connection.execute(_ROLE).one()
        values = {"tables": [table for table, _ in pairs], "privileges": [privilege for _, privilege in pairs]}
        rows = connection.execute(_MISSING, values).all()
    lacking: dict[str, list[str]] = {}
    for table, privilege in rows:
        lacking.setdefault(table, []).append(privilege)
    alike: dict[str, list[str]] = {}
    for table, privileges in lacking.items():
        alike.setdefault(", ".join(privileges), []).append(table)
    grants = [f"GRANT {privileges} ON {', '.join(tables)} TO {quoted};" for privileges, tables in alike.items()]
    return MissingRights(role, tuple(grants), tuple(lacking))
