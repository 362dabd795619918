"""Converts records into rows of a statement's JSON, and rows into records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import msgspec

from notifier.domain.statuses import Outcome, Reason, Status
from notifier.store.personal_data import PersonalData
from notifier.store.provider_messages import MessageAssignment
from notifier.store.records import DeliveryResult, NewAttempt, NotificationToSend, Unknown
from notifier.store.rows import from_row, reader
from notifier.store.sanitize import bytea, storable

_RESULT_FIELDS = [field.name for field in fields(DeliveryResult) if field.name != "suppression"]


def as_json(rows: Any) -> str:
    """The JSON for the parameter `:rows`."""
    try:
        return msgspec.json.encode(rows).decode()
    except (TypeError, ValueError):
        # Some value is not JSON, such as a lone surrogate; PostgreSQL will say in which row.
        return json.dumps(rows, default=str)


def result_row(result: DeliveryResult) -> dict[str, Any]:
    """A row for `FINISH…` and `FINISH_ATTEMPTS`."""
    return {name: getattr(result, name) for name in _RESULT_FIELDS} | {
        "id": str(result.id),
        "detail": _words(result.detail),
        "code": _words(result.code),
        "provider_message_id": _words(result.provider_message_id),
        "id_space": result.id_space if result.provider_message_id else None,
    }


def message_assignment(result: DeliveryResult) -> MessageAssignment:
    row = result_row(result)
    return MessageAssignment(
        id_space=row["id_space"],
        provider_message_id=row["provider_message_id"],
        notification_id=result.id,
        attempt=result.number or 0,
        proof=result.proof,
    )


def not_ours(result: DeliveryResult, due_in_seconds: float) -> DeliveryResult:
    """The result of an acceptance whose message is proven to belong to another attempt."""
    return replace(
        result,
        status=Status.UNKNOWN,
        reason=Reason.OUTCOME_UNKNOWN,
        detail=f"the provider answered with a message that is another attempt's: {result.provider_message_id}",
        due_in_seconds=due_in_seconds,
        outcome=Outcome.UNKNOWN,
        provider_message_id=None,
    )


def notifications_of(rows: Sequence[Any], personal_data: PersonalData, read_at: float) -> list[NotificationToSend]:
    """The notifications of rows of `CLAIM` or `READ_QUEUED`."""
    if not rows:
        return []
    read = reader(NotificationToSend, rows[0]._fields, "recipient", "address", "context", "problem", "read_at")
    found = []
    for row in rows:
        person = personal_data.open_to_send(row, row.secrets)
        found.append(read(row, person.recipient, person.address, person.context, person.problem, read_at))
    return found


def unknown_of(row: Any, personal_data: PersonalData) -> Unknown:
    """The attempt of a row of `UNKNOWN` or `RIVALS`."""
    person = personal_data.open_to_send(row, row.secrets)
    return from_row(
        Unknown,
        row,
        recipient=person.recipient,
        address=person.address,
        context=person.context,
        problem=person.problem,
    )


def call_row(call: NewAttempt) -> dict[str, Any]:
    """A row for `START_ATTEMPTS` and `CLAIM_AND_START`."""
    guard = call.guard
    row: dict[str, Any] = {
        "id": str(call.notification.id),
        "claim": call.notification.claim,
        "number": call.number,
        "provider": call.provider,
        "template_version": call.template_version,
        "sender_address": call.sender_address,
    }
    if call.notification.expires_at is not None:
        row["expires_at"] = call.notification.expires_at
    if guard is not None:
        row["hashes"] = [bytea(form) for form in guard.address_hashes]
        row["sender"] = guard.sender_scope
        if guard.category_scope:
            row["category"] = guard.category_scope
        if guard.is_exempt:
            row["exempt"] = True
    return row


def _words(text: str | None) -> str | None:
    return text and storable(text)[:500]
