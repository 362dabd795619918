"""The options of every database session: time limits, and how statements are planned."""

from __future__ import annotations

#: The server ends a statement that takes longer.
STATEMENT_SECONDS = 30.0

#: Our statements find their rows by id or by an index made for them. Without statistics (a new month's partition)
#: the planner would prefer to read the whole partition, and keep that plan while the partition grows. JIT would
#: compile plans whose cost is overestimated. Each statement has one plan for all values, because planning it again
#: costs more than executing it. Values as PostgreSQL shows them.
OPTIONS = {
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "idle_in_transaction_session_timeout": "1min",
    "timezone": "UTC",
    # The driver can read no other.
    "datestyle": "ISO, YMD",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}

START_OPTIONS = " ".join(f"-c {name}={value}".replace(", ", ",\\ ") for name, value in OPTIONS.items())
#: Begins a transaction and sets the options for it.
SET_OPTIONS = "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in OPTIONS.items())


def role_statements(role: str, database: str) -> list[str]:
    """Statements that make the options a role's defaults, so that they need not be set in each transaction."""

    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    start = f"ALTER ROLE {quoted(role)} IN DATABASE {quoted(database)} SET"
    return [f"{start} {name} = '{value}';" for name, value in OPTIONS.items()]
