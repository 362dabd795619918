"""The rights that the programs' role needs on each table, and which of them it lacks.

`deploy/postgres/rights.sql` grants exactly these, and takes back `UPDATE` of other columns; a test keeps the two
in step. Programs of the previous version also run with these rights, so a column leaves this list one version
after the last program that changes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Engine, text

from notifier.store.engine import transaction

#: One privilege, on a table or on the columns that follow it.
_PRIVILEGE = re.compile(r"[A-Z]+(?: \([^)]*\))?")
#: Table → the privileges that programs need on it. If `UPDATE` names columns, the others never change.
NEEDED: Mapping[str, tuple[str, ...]] = {
    table: tuple(_PRIVILEGE.findall(privileges))
    for privileges, tables in {
        "SELECT": "alembic_version",
        "SELECT, INSERT": "events",
        # It is a sequence: a restored database goes on with higher numbers.
        "UPDATE": "callbacks_sequence_seq",
        "SELECT, INSERT, DELETE": "idempotency_keys",
        "SELECT, INSERT, UPDATE (result, finished_at)": "operator_records",
        "SELECT, INSERT, UPDATE (finished_at, outcome, reason, code, detail, provider_message_id, subject)": (
            "attempts"
        ),
        # The new time if an operator reschedules it, and what protects people's data.
        "SELECT, INSERT, UPDATE (send_at, recipient, address, address_hash, context, sealed, secrets, "
        "secret_names, metadata, callback_url)": "messages",
        "SELECT, INSERT, UPDATE (address_hash, lifted_at, lifted_by, lifted_detail)": "suppressions",
        "SELECT, INSERT, UPDATE (expires_at, revoked_at, last_used_at)": "api_keys",
        "SELECT, INSERT, UPDATE": (
            "states retention_marks upkeep_runs database_identity jobs provider_states circuits rate_slots "
            "callback_endpoints bounce_alarms"
        ),
        "SELECT, INSERT, UPDATE, DELETE": (
            "provider_messages provider_outcomes usage_counts rejected_messages attachments callbacks "
            "callback_attempts hard_bounces held_suppressions unread_bounces daily_statistics console_sessions "
            "minute_counts failed_counts hash_keys recurring_notifications recurring_recipients recurring_runs"
        ),
    }.items()
    for table in tables.split()
}

# A missing table or column is not reported here: `notifier db upgrade` adds it.
_MISSING = text("""
    SELECT needed.name, needed.privilege, needed.of_column
    FROM unnest(cast(:tables AS text[]), cast(:privileges AS text[]), cast(:columns AS text[]))
         WITH ORDINALITY AS needed (name, privilege, of_column, place)
    LEFT JOIN pg_attribute AS c ON c.attrelid = to_regclass(needed.name) AND c.attname = needed.of_column
    WHERE NOT CASE WHEN needed.of_column IS NULL
      THEN has_table_privilege(to_regclass(needed.name), needed.privilege)
      ELSE has_column_privilege(c.attrelid, c.attnum, needed.privilege) END
    ORDER BY needed.place
""")
_ROLE = text("SELECT current_user::text, quote_ident(current_user)")


@dataclass(frozen=True, slots=True)
class MissingRights:
    """The rights that a role lacks."""

    role: str
    #: The statements that grant them, for the owner of the tables. Empty: nothing is missing.
    grants: tuple[str, ...]
    #: The tables concerned, in the order of `NEEDED`.
    tables: tuple[str, ...]


def missing_rights(engine: Engine) -> MissingRights:
    """The rights that programs need and the engine's role lacks. The owner of the tables and a superuser lack
    none.

    Raises `ServiceUnavailable` if the database cannot be asked now."""
    asked = [(table, *one) for table, privileges in NEEDED.items() for one in _each(privileges)]
    with transaction(engine) as connection:
        role, quoted = connection.execute(_ROLE).one()
        tables, privileges, columns = map(list, zip(*asked, strict=True))
        values = {"tables": tables, "privileges": privileges, "columns": columns}
        rows = connection.execute(_MISSING, values).all()
    lacking: dict[str, dict[str, list[str]]] = {}
    for table, privilege, column in rows:
        of = lacking.setdefault(table, {}).setdefault(privilege, [])
        of += [column] if column else []
    alike: dict[str, list[str]] = {}
    for table, its in lacking.items():
        alike.setdefault(", ".join(_written(*one) for one in its.items()), []).append(table)
    grants = [f"GRANT {privileges} ON {', '.join(tables)} TO {quoted};" for privileges, tables in alike.items()]
    return MissingRights(role, tuple(grants), tuple(lacking))


def _each(privileges: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """Each privilege with its column. None: it is on all columns."""
    for one in privileges:
        name, *columns = re.findall(r"\w+", one)
        yield from ((name, column) for column in columns or [None])


def _written(privilege: str, columns: list[str]) -> str:
    return f"{privilege} ({', '.join(columns)})" if columns else privilege
