"""Reads messages from the body of an HTTP request. The contract is the same; the API key gives the producer.

The message names its channel, because there is no routing key. It may name its lane; the default is `normal`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from notifier.domain.assumed_channel import assumed_channel, is_neither, of_no_channel
from notifier.domain.batches import entries_of
from notifier.domain.drafts import Draft
from notifier.domain.errors import Fault, InvalidMessage, few
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import (
    Entry,
    decode,
    no_object,
    open_batch,
    read_faultless,
    read_message,
)

Word = TypeVar("Word", bound=StrEnum)
#: Returns the only channel that has this template; None if there is not exactly one.
ChannelOf = Callable[[object], Channel | None]


def _unknown(_: object) -> None:
    return None


def read_request(
    body: bytes, producer: str, key: str | None = None, *, now: datetime, channel_of: ChannelOf = _unknown
) -> Entry:
    """Read one message. `key` is the value of the header Idempotency-Key, `now` as in `parse_body`.

    A message without a channel is refused. Its other fields are checked all the same, for the channel that its
    recipient suggests, or else its template.

    Raises:
        InvalidMessage: the body is not a JSON object.
    """
    message = _read_faultless(body, producer, key, now)
    if message is not None:
        return Entry(message)
    value = decode(body)
    if isinstance(value, Entry):
        if value.of_event is None:
            raise InvalidMessage(value.faults)
        return value.beside(_read(value.of_event, producer, key, now, channel_of))
    return _read(value, producer, key, now, channel_of)


def _read_faultless(body: bytes, producer: str, key: str | None, now: datetime) -> Message | None:
    known = {"producer": producer, "lane": Lane.NORMAL} | ({} if key is None else {"idempotency_key": key})
    message = read_faultless(body, json.dumps(known)[:-1].encode() + b",", now)
    if message is None or message.producer != producer or message.lane is None:
        return None
    return message if key is None or message.idempotency_key == key else None


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """The entries of a batch, each with its message or its faults."""

    entries: list[Entry]
    #: Faults of the batch as a whole; if there are any, no entry is accepted.
    faults: tuple[Fault, ...] = ()


def read_batch_request(
    body: bytes, producer: str, *, now: datetime, channel_of: ChannelOf = _unknown
) -> BatchRequest:
    """Read a batch.

    Raises:
        InvalidMessage: the batch as a whole is wrong in a way that its entries cannot be made out.
    """
    value = decode(body)
    if isinstance(value, Entry):
        raise InvalidMessage(value.faults)
    batch = open_batch(value)
    entries: list[Entry] = []
    for item, _ in entries_of(batch.envelope):
        found = _read(item, producer, None, now, channel_of) if item is not None else no_object()
        entries.append(replace(found, faults=batch.not_blamed(found.faults)))
    return BatchRequest(entries, batch.faults)


def _read(value: Mapping[str, Any], producer: str, key: str | None, now: datetime, channel_of: ChannelOf) -> Entry:
    faults: list[Fault] = []
    if value.get("producer") not in (None, producer):
        fix = f"Leave it out: this key belongs to {producer}"
        faults.append(Fault("producer", "wrong_producer", "is not the producer of the key", fix))
    if key is not None and value.get("idempotency_key") not in (None, key):
        fix = "Give it in one place, or the same in both"
        faults.append(
            Fault("idempotency_key", "key_mismatch", "is not the one in the header Idempotency-Key", fix)
        )
    known = {"producer": producer} if key is None else {"producer": producer, "idempotency_key": key}
    channel = _word(Channel, "channel", value.get("channel"), faults)
    lane = _word(Lane, "lane", Lane.NORMAL if value.get("lane") is None else value["lane"], faults) or Lane.NORMAL
    is_assumed = channel is None
    channel = channel or assumed_channel(value.get("to"), value.get("template"), channel_of)
    found = read_message({**value, **known, "channel": channel, "lane": lane}, channel, lane, now=now)
    if not faults:
        return found
    of_message = map(of_no_channel, found.faults) if is_assumed and is_neither(value.get("to")) else found.faults
    draft = found.draft if found.message is None else Draft(found.message)
    return Entry(None, few((*faults, *of_message)), draft=draft)


def _word(kind: type[Word], name: str, value: object, faults: list[Fault]) -> Word | None:
    """The value as a member of `kind`. None, with one more fault: it is missing or not a member."""
    choices = ", ".join(kind)
    if value is None:
        faults.append(Fault(name, "missing", "is required, but missing", f"Add it: one of {choices}"))
        return None
    if not isinstance(value, str) or value not in set(kind):
        faults.append(Fault(name, "bad_choice", f"is not one of {choices}", "Use one of them"))
        return None
    return kind(value)
