"""Claims notifications and begins attempts, also again after a lost answer.

Crash point: between a statement's commit and its answer nobody knows whether it was carried out. It is repeated
with the same token, or for the same attempt numbers, and finds what it did. Reading queued rows writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, TextClause

from notifier.domain.statuses import SIMULATOR, SuppressionReason
from notifier.store import claim_sql as statements
from notifier.store.engine import execute_directly, transaction
from notifier.store.ledger_rows import as_json, call_row
from notifier.store.records import NewAttempt, Started
from notifier.store.rows import from_row


def claim_rows(
    engine: Engine, ids: Sequence[UUID], token: UUID, *, lease_seconds: float, again: bool
) -> list[Any]:
    """Rows of `CLAIM`. Notifications that were in hand when a worker died are confirmed before anybody looks into
    them: if they end this process too, that counts as a second death."""
    values = {"ids": list(ids), "token": token, "lease": lease_seconds}
    with transaction(engine, is_one_statement=not again) as connection:
        if again:
            connection.execute(statements.WAIT_FOR, {"ids": values["ids"]})
        rows = execute_directly(connection, statements.CLAIM, values)
    suspects = [row.id for row in rows if row.crash_count]
    if suspects:
        with transaction(engine, is_one_statement=True) as connection:
            connection.execute(statements.CONFIRM_CLAIMS, {"ids": suspects, "token": token})
    return rows


def queued_rows(engine: Engine, ids: Sequence[UUID]) -> list[Any]:
    """Rows of `READ_QUEUED`, one for each id."""
    with transaction(engine, is_one_statement=True) as connection:
        return execute_directly(connection, statements.READ_QUEUED, {"ids": list(set(ids))})


def start(engine: Engine, calls: Sequence[NewAttempt], *, margin_seconds: float, again: bool) -> list[Started]:
    """The attempts that are committed now."""
    values = {"margin": margin_seconds}
    return [from_row(Started, row) for row in _begin(engine, calls, statements.START_ATTEMPTS, values, again)]


def claim_and_start(
    engine: Engine,
    calls: Sequence[NewAttempt],
    token: UUID,
    *,
    lease_seconds: float,
    margin_seconds: float,
    again: bool,
) -> dict[UUID, Started | None]:
    """The attempts that are committed now together with their claims. None: it is suppressed now."""
    values = {"token": token, "lease": lease_seconds, "margin": margin_seconds}
    # In the order of ids, so that two tasks with the same ids do not deadlock.
    ordered = sorted(calls, key=lambda call: call.notification.id)
    begun = _begin(engine, ordered, statements.CLAIM_AND_START, values, again)
    return {row.id: from_row(Started, row) if row.number is not None else None for row in begun}


def _begin(
    engine: Engine, calls: Sequence[NewAttempt], statement: TextClause, values: dict[str, Any], again: bool
) -> list[Any]:
    """Rows of `statement`, and of `STARTED` if it is called `again` after a lost answer."""
    rows = [call_row(call) for call in calls]
    with transaction(engine, is_one_statement=not again) as connection:
        begun: list[Any] = []
        if again:
            connection.execute(statements.WAIT_FOR, {"ids": [row["id"] for row in rows]})
            begun += connection.execute(statements.STARTED, {"token": None, **values, "rows": as_json(rows)})
            known = {str(row.id) for row in begun}
            rows = [row for row in rows if row["id"] not in known]
        if rows:
            wishes = [reason for reason in SuppressionReason if reason.is_a_wish]
            given = {**values, "rows": as_json(rows), "wishes": wishes, "simulator": SIMULATOR}
            begun += execute_directly(connection, statement, given)
    return begun
