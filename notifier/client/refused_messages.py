"""Asks the service what is wrong with messages that the client itself refuses. Only the service knows senders,
callback URLs, templates and the key's rights, and one error should list every fault.

The messages are sent in a batch that is invalid as a whole, so the service accepts none of them whatever it finds.
Values without a JSON form are sent as null; the client already has a fault for each of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from notifier.broker.batch_form import MAX_ENTRY_BYTES
from notifier.client.context_values import as_json
from notifier.client.conversations import Conversation, post
from notifier.client.replies import faults_of
from notifier.domain.errors import Fault
from notifier.domain.message import MAX_NUMBER

#: A field that no version of the contract has: it makes the batch invalid.
_REFUSE = "not to be accepted"


def ask_against(entries: Sequence[bytes], first: int) -> Conversation[list[Fault] | None]:
    """Return the service's faults in these entries, none of which is accepted. Fields begin with a position,
    counted from `first`. None: the service does not say."""
    fields = json.dumps({_REFUSE: True})[1:].encode()
    body = b'{"batch":[' + b",".join(entries) + b"]," + fields
    reply = yield from post("/v1/notifications/batch", body)
    if reply.refusal is None or not reply.refusal.errors:
        return None
    found = faults_of(reply.refusal.errors, None, first)
    return [fault for fault in found if _position(fault) is not None]


def entry_of(fields: object) -> bytes:
    """A message as an entry of such a batch. Null if it is not an object, or too large."""
    if not isinstance(fields, Mapping):
        return b"null"
    values = {name: _written(value) for name, value in fields.items() if isinstance(name, str)}
    body = json.dumps(_sendable({name: value for name, value in values.items() if value is not None})).encode()
    return body if len(body) <= MAX_ENTRY_BYTES else b"null"


def _written(value: Any) -> Any:
    """Convert members one by one, so that only a member that is nested too deeply is left out."""
    members = value.items() if isinstance(value, Mapping) else [("", value)]
    found = {name: written for key, member in members for name, written in as_json({key: member})[0].items()}
    return found if isinstance(value, Mapping) else found.get("")


def beside(own: Sequence[Fault], of_service: Iterable[Fault]) -> Iterator[Fault]:
    """The client's faults, and the service's faults in other fields."""
    yield from own
    for fault in of_service:
        if not any(_is_within(fault.field, one.field) or _is_within(one.field, fault.field) for one in own):
            yield fault


def of_the_only(faults: Iterable[Fault]) -> list[Fault]:
    """The faults of a call with one message, without the position in front of the field."""
    return [replace(fault, field=fault.field.partition(".")[2]) for fault in faults]


def by_position(faults: Iterable[Fault]) -> list[Fault]:
    """Faults of the call itself first, then those of each entry in order."""
    return sorted(
        faults, key=lambda fault: int(found) if (found := fault.field.partition(".")[0]).isdecimal() else -1
    )


def _position(fault: Fault) -> int | None:
    first = fault.field.partition(".")[0]
    return int(first) if first.isdecimal() else None


def _is_within(field: str, other: str) -> bool:
    return field == other or field.startswith(f"{other}.")


def _sendable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sendable(item) for name, item in value.items() if _sendable(name) is not None}
    if isinstance(value, list):
        return [_sendable(item) for item in value]
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return None
    elif isinstance(value, int | float):
        # Also null for NaN, for which every comparison is false.
        return value if abs(value) < MAX_NUMBER else None
    return value
