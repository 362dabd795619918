"""How the body of an HTTP request becomes messages: the same contract, with the producer known from the key.

The message holds its channel, because there is no routing key, and its lane, which is otherwise `normal`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import ValidationError

from notifier.domain.drafts import Draft, draft_of
from notifier.domain.errors import Fault, InvalidMessage
from notifier.domain.message import Envelope, Message
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import (
    Entry,
    batch_faults,
    decode,
    entries_of,
    faults_of,
    no_object,
    read_faultless,
    read_message,
)

Word = TypeVar("Word", bound=StrEnum)


def read_request(body: bytes, producer: str, key: str | None = None, *, now: datetime) -> Entry:
    """One message. `key` is from the header Idempotency-Key, `now` as in `parse_body`.

    Raises:
        InvalidMessage: it is not a JSON object.
    """
    message = _read_faultless(body, producer, key, now)
    if message is not None:
        return Entry(message)
    value = decode(body)
    if isinstance(value, Entry):
        if value.of_event is None:
            raise InvalidMessage(value.faults)
        return value.beside(_read(value.of_event, producer, key, now))
    return _read(value, producer, key, now)


def _read_faultless(body: bytes, producer: str, key: str | None, now: datetime) -> Message | None:
    known = {"producer": producer, "lane": Lane.NORMAL} | ({} if key is None else {"idempotency_key": key})
    message = read_faultless(body, json.dumps(known)[:-1].encode() + b",", now)
    if message is None or message.producer != producer or message.lane is None:
        return None
    return message if key is None or message.idempotency_key == key else None


def read_batch_request(body: bytes, producer: str, *, now: datetime) -> list[Entry]:
    """The entries of a batch, each a message or its faults.

    Raises:
        InvalidMessage: the batch as a whole is not right.
    """
    value = decode(body)
    if isinstance(value, Entry):
        raise InvalidMessage(value.faults)
    try:
        envelope = Envelope.model_validate(value)
    except ValidationError as error:
        raise InvalidMessage(faults_of(error)) from None
    faults = batch_faults(envelope)
    if faults:
        raise InvalidMessage(faults)
    return [
        _read(item, producer, None, now) if item is not None else no_object() for item, _ in entries_of(envelope)
    ]


def _read(value: Mapping[str, Any], producer: str, key: str | None, now: datetime) -> Entry:
    faults = []
    if value.get("producer") not in (None, producer):
        fix = f"Leave it out: this key is that of {producer}"
        faults.append(Fault("producer", "wrong_producer", "is not the producer of the key", fix))
    if key is not None and value.get("idempotency_key") not in (None, key):
        fix = "Give it in one place, or the same in both"
        faults.append(Fault("idempotency_key", "key_mismatch", "is not that of the header Idempotency-Key", fix))
    known = {"producer": producer} if key is None else {"producer": producer, "idempotency_key": key}
    lane_given = value.get("lane")
    merged = {**value, **known, "lane": Lane.NORMAL if lane_given is None else lane_given}
    channel, lane = _word(Channel, merged.get("channel")), _word(Lane, merged["lane"])
    if merged.get("channel") is None:
        fix = f"Add it: one of {', '.join(Channel)}"
        faults.append(Fault("channel", "missing", "is required, but missing", fix))
    if channel is not None and lane is not None:
        found = read_message(merged, channel, lane, now=now)
        if not faults:
            return Entry(found.message, found.faults, draft=found.draft)
        draft = found.draft if found.message is None else Draft(found.message)
        return Entry(None, (*faults, *found.faults), draft=draft)
    draft = None
    try:
        Message.model_validate(merged)
    except ValidationError as error:
        faults += faults_of(error)
        if channel is not None:
            draft = draft_of(merged, channel, Lane.NORMAL, error)
    return Entry(None, tuple(faults), draft=draft)


def _word(words: type[Word], value: object) -> Word | None:
    return words(value) if isinstance(value, str) and value in set(words) else None
