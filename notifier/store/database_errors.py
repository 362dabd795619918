"""Interprets errors of the database: whether it can be used, or our statement is at fault.

SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from notifier.domain.errors import RowsHeld, ServiceUnavailable, StatementCancelled
from notifier.store.session_options import STATEMENT_SECONDS

#: Our role lacks a right.
NO_RIGHT = "42501"
#: A lock was not available within `lock_timeout`.
LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK = "40P01"
#: It took longer than `statement_timeout`, or `pg_cancel_backend` ended it. The database is there.
_CANCELLED = "57014"
#: Classes (and single states) that say nothing against our statement; it may work later.
#: 08 connection, 25006 read-only, 40 rollback (deadlock), 53 resources (disk, memory, connections),
#: 55 object in use, 57 operator (shutdown, crash), 58 system.
_TEMPORARY = ("08", "25006", "40", "53", "55", "57", "58")
#: "Undefined table" and "undefined column": the database is not at this version's revision (yet).
_NOT_MIGRATED = ("42P01", "42703")
#: All other faults of our statements, such as a right that our role lacks. Never a message's fault.
_OURS = "42"


def sqlstate_of(error: ServiceUnavailable) -> str | None:
    """The SQLSTATE of the error that `transaction` turned into this one. None: there was none."""
    return getattr(getattr(error.__cause__, "orig", None), "sqlstate", None)


def is_about_statement(error: ServiceUnavailable) -> bool:
    """Whether the database is there but ended this statement: it took too long, or its rows are locked."""
    return isinstance(error, StatementCancelled) or sqlstate_of(error) == LOCK_NOT_AVAILABLE


def meaning_of(error: SQLAlchemyError) -> ServiceUnavailable | None:
    """The error to raise for it. None: the statement is at fault."""
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None) or ""
    if state == _CANCELLED:
        return StatementCancelled(
            f"the database ended a statement: it took longer than {STATEMENT_SECONDS:.0f}s, or an administrator "
            "cancelled it"
        )
    if state in (LOCK_NOT_AVAILABLE, DEADLOCK):
        return RowsHeld("the database cannot be used now: another session holds the rows")
    if _is_temporary(error):
        cause = str(original or error).strip().splitlines() or [type(error).__name__]
        return ServiceUnavailable(f"the database cannot be used now: {cause[0]}")
    if state in _NOT_MIGRATED:
        return ServiceUnavailable(
            "the database does not have the tables of this version: run `notifier db upgrade`"
        )
    if state.startswith(_OURS):
        words = "".join(str(original or "").splitlines()[:1])
        fix = "; `notifier doctor` (rights) says what to grant" if state == NO_RIGHT else ""
        return ServiceUnavailable(f"the database refuses notifier's statement: {words} ({state}){fix}")
    return None


def _is_temporary(error: SQLAlchemyError) -> bool:
    """Whether the database could not be used at all, in contrast to refusing this statement."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    # Without a SQLSTATE the connection was never made, or broke during the statement.
    return error.connection_invalidated or state is None or state.startswith(_TEMPORARY)
