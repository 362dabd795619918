"""Values as the rows of a statement's JSON."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import to_json

from notifier.store.storable import bytea, storable
from notifier.store.values import NewAttempt, Result


def as_json(rows: Any) -> str:
    """What a statement takes as `:rows`."""
    try:
        return to_json(rows).decode()
    except ValueError:
        # A lone surrogate has no UTF-8 form, or it is too deep; PostgreSQL says of which row.
        return json.dumps(rows, default=str)


def result_row(result: Result) -> dict[str, Any]:
    """For `FINISH` and `FINISH_ATTEMPTS`."""
    return {
        "id": str(result.id),
        "claim": result.claim,
        "status": result.status,
        "reason": result.reason,
        "detail": _words(result.detail),
        "due_in_seconds": result.due_in_seconds,
        "template_version": result.template_version,
        "number": result.number,
        "outcome": result.outcome,
        "provider": result.provider,
        "code": _words(result.code),
        "subject": result.subject,
        "provider_message_id": _words(result.provider_message_id),
    }


def call_row(call: NewAttempt) -> dict[str, Any]:
    """For `START_ATTEMPTS`."""
    guard = call.guard
    row: dict[str, Any] = {"id": str(call.claim.id), "claim": call.claim.claim, "provider": call.provider}
    if guard is not None:
        row["hash"] = bytea(guard.address_hash)
        row["sender"] = guard.sender_scope
        if guard.category_scope:
            row["category"] = guard.category_scope
        if guard.is_exempt:
            row["exempt"] = True
    return row


def _words(text: str | None) -> str | None:
    return text and storable(text)[:500]
