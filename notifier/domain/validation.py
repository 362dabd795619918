"""Turns bytes into `Message` values, or into faults that say what is wrong with them.

Everything that the bytes alone can show is checked here. Whether a template, a sender or a provider exists is
checked by the intake. `parse_body` never raises, whatever it is given: every entry comes back as a `Message` or as
the list of its faults.

Most bodies are one message without a fault, which pydantic reads from the bytes. All others are read step by step,
so that each fault can be reported. Both ways give the same result (property test).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import from_json

from notifier.domain.batches import OpenedBatch, batch_faults, entries_of
from notifier.domain.cloud_events import CloudEvent, extension_faults, is_cloud_event, message_to_judge
from notifier.domain.drafts import Draft, draft_of
from notifier.domain.errors import Fault, InvalidMessage, few
from notifier.domain.message import (
    MAX_AGE,
    MAX_BODY_BYTES,
    MAX_CLOCK_SKEW,
    MAX_NUMBER,
    MAX_SCHEDULE_AHEAD,
    Envelope,
    Message,
    time_of_id,
)
from notifier.domain.recipient_identity import recipient_faults
from notifier.domain.statuses import Channel, Lane
from notifier.domain.storable_values import storage_faults

#: Bodies with these are read step by step: a NUL character, and words that Python but not JSON takes for numbers.
_DOUBTFUL = (b"\\u0000", b"NaN", b"Infinity")
#: How a body is made to begin, with the channel and lane of its queue; it may name others further on.
_OPENINGS = {
    (channel, lane): f'{{"channel":"{channel}","lane":"{lane}",'.encode() for channel in Channel for lane in Lane
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a body, or the `faults` that keep it from being one."""

    message: Message | None
    faults: tuple[Fault, ...] = ()
    #: The entry's JSON with the defaults merged in, if the body was a batch. None: the whole body is the entry.
    raw: bytes | None = None
    #: The producer that it names, if that could be read at all.
    producer: str | None = None
    #: With faults: the part that can be checked all the same. None: too little is correct.
    draft: Draft | None = None
    #: If a CloudEvent is refused: its message, whose faults `beside` adds.
    of_event: dict[str, Any] | None = None
    #: If a batch is refused as a whole: each of its entries, so that their own faults are found too.
    parts: tuple[Entry, ...] = ()

    def beside(self, message: Entry) -> Entry:
        """The faults of an event together with the faults of its message."""
        draft = message.draft if message.message is None else Draft(message.message)
        return replace(message, message=None, faults=few((*self.faults, *message.faults)), draft=draft)

    def within(self, traceparent: str) -> Entry:
        """The same entry with this `traceparent`, unless its message has its own."""
        return self if self.message is None else replace(self, message=self.message.within(traceparent))

    def with_further(self, further: Iterable[Fault]) -> tuple[Fault, ...]:
        """Its faults in order, followed by the further faults that were found in its draft."""
        known = {fault.field for fault in self.faults}
        replaced = self.draft.replaced if self.draft else frozenset()
        news = (one for one in further if one.field not in known and one.field.partition(".")[0] not in replaced)
        return few(chain(self.faults, news))


def parse_body(body: bytes, channel: Channel, lane: Lane, *, now: datetime | None = None) -> list[Entry]:
    """Read what a producer published to the queue of `channel` and `lane`.

    `now` is the time against which ages are judged (default: this machine's clock). Never raises; a body that is
    no JSON object is returned as one entry with its fault.
    """
    now = now or datetime.now(UTC)
    message = _read_faultless(body, channel, lane, now)
    if message is not None:
        return [Entry(message, producer=message.producer)]
    value = decode(body)
    if isinstance(value, Entry):
        return [value.beside(read_message(value.of_event, channel, lane, now=now)) if value.of_event else value]
    if "batch" not in value:
        return [read_message(value, channel, lane, now=now)]
    return _parse_batch(value, channel, lane, now)


def decode(body: bytes) -> dict[str, Any] | Entry:
    """The JSON object of a body, or of a CloudEvent its message; if it is wrong, an entry. Never raises."""
    if len(body) > MAX_BODY_BYTES:
        return _refused("too_large", f"{len(body)} bytes", f"Send at most {MAX_BODY_BYTES} bytes a message")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        return _refused("bad_utf8", f"byte {error.start} is not UTF-8", "Encode the JSON as UTF-8")
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        return _refused("not_json", f"not readable as JSON: {error}", "Publish one JSON object")
    if not isinstance(value, dict):
        kinds = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
        kind = kinds.get(type(value), "a number")
        return _refused("not_an_object", f"{kind}, not an object", "Publish one JSON object")
    # Protocol 1 carries the task in the body. The body of protocol 2 is a list and is refused as such.
    if "task" in value and ("args" in value or "kwargs" in value):
        fix = "Publish plain JSON to the exchange notify; Celery's own task messages are not read here"
        return _refused("celery_message", "a message of Celery's task protocol", fix)
    return _unwrapped(value) if is_cloud_event(value) else value


def _unwrapped(value: dict[str, Any]) -> dict[str, Any] | Entry:
    """The message of a CloudEvent."""
    message: dict[str, Any] = {}
    try:
        event = CloudEvent.model_validate(value)
        of_event, message = event.key_faults(), event.message()
    except ValidationError as error:
        of_event = (replace(fault, field=f"cloudevent.{fault.field}") for fault in faults_of(error))
    faults = few((*of_event, *extension_faults(value)))
    return Entry(None, faults, of_event=message_to_judge(value.get("data"))) if faults else message


def read_message(value: Mapping[str, Any], channel: Channel, lane: Lane, *, now: datetime) -> Entry:
    producer = _claimed_producer(value)
    try:
        message = Message.model_validate({**value, **_agreed(value, channel, lane)})
    except ValidationError as error:
        draft = draft_of(value, channel, lane, error)
        found = few(chain.from_iterable(map(faults_of, [error, *(draft.as_whole if draft else ())])))
        entry = Entry(None, found, producer=producer, draft=draft)
        faults = entry.with_further(_value_faults(draft.message, channel, now)) if draft else found
        return replace(entry, faults=faults, draft=draft and draft.without(faults))
    faults = few(_value_faults(message, channel, now))
    if faults:
        return Entry(None, faults, producer=producer, draft=Draft(message).without(faults))
    return Entry(message, producer=producer)


def _claimed_producer(value: Mapping[str, Any]) -> str | None:
    claimed = value.get("producer")
    return claimed if isinstance(claimed, str) and len(claimed) <= 100 and "\0" not in claimed else None


def _value_faults(message: Message, channel: Channel, now: datetime) -> Iterator[Fault]:
    """Faults that the types of the fields do not show."""
    return chain(
        recipient_faults(message.to, channel),
        _check_attachments(message, channel),
        _check_times(message, now),
        storage_faults(message),
    )


def _read_faultless(body: bytes, channel: Channel, lane: Lane, now: datetime) -> Message | None:
    message = read_faultless(body, _OPENINGS[channel, lane], now)
    return message if message and message.channel is channel and message.lane is lane else None


def read_faultless(body: bytes, opening: bytes, now: datetime) -> Message | None:
    """The message of a body that is one message without a fault. None: read it step by step.

    `opening` begins the object (`{"lane":"normal",`). The body may hold the same fields again, and then those win.
    The message has no half characters: JSON readers refuse them, both as UTF-8 and as escapes.
    """
    if len(body) > MAX_BODY_BYTES or not body.startswith(b"{"):
        return None
    text = opening + body[1:]
    if any(map(text.__contains__, _DOUBTFUL)):
        return None
    try:
        message = Message.model_validate_json(text)
    except ValidationError:
        return None
    channel = message.channel
    if channel is None or _has_large_numbers(message.context):
        return None
    if recipient_faults(message.to, channel) or _check_attachments(message, channel) or _check_times(message, now):
        return None
    return message


def _has_large_numbers(value: dict[str, Any] | list[Any]) -> bool:
    # By type, not `isinstance`, because it looks at every one of the many values of a context.
    for item in value.values() if isinstance(value, dict) else value:
        kind = type(item)
        if kind is int or kind is float:
            if abs(item) >= MAX_NUMBER:
                return True
        elif (kind is dict or kind is list) and _has_large_numbers(item):
            return True
    return False


def check(message: Message, channel: Channel, lane: Lane) -> Message:
    """The same checks on the producer's side; sets channel and lane. Raises `InvalidMessage` with every fault."""
    entry = read_message(message.model_dump(exclude_none=True), channel, lane, now=datetime.now(UTC))
    if entry.message is None:
        raise InvalidMessage(entry.faults)
    return entry.message


def _refused(code: str, problem: str, fix: str) -> Entry:
    return Entry(None, (Fault("", code, problem, fix),))


def _parse_batch(value: dict[str, Any], channel: Channel, lane: Lane, now: datetime) -> list[Entry]:
    producer = _claimed_producer(value)
    try:
        batch = open_batch(value)
    except InvalidMessage as error:
        return [Entry(None, error.faults, producer=producer)]
    entries: list[Entry] = []
    for item, raw in entries_of(batch.envelope):
        found = read_message(item, channel, lane, now=now) if item is not None else no_object()
        faults = batch.not_blamed(found.faults)
        entries.append(replace(found, faults=faults, raw=raw, producer=found.producer or producer))
    if batch.faults:
        return [Entry(None, batch.faults, producer=producer, parts=tuple(entries))]
    return entries


def open_batch(value: dict[str, Any]) -> OpenedBatch:
    """Open a batch. Raises `InvalidMessage` if it is so wrong that its entries cannot be made out."""
    faults: tuple[Fault, ...] = ()
    wrong: frozenset[str] = frozenset()
    try:
        envelope = Envelope.model_validate(value)
    except ValidationError as error:
        faults = faults_of(error)
        wrong = frozenset(str(detail["loc"][0]) for detail in error.errors(include_url=False) if detail["loc"])
        if wrong & {"batch", "defaults"}:
            raise InvalidMessage(faults) from None
        envelope = Envelope.model_validate({name: item for name, item in value.items() if name not in wrong})
    faults = few((*batch_faults(envelope), *faults))
    if any(fault.code == "too_large" for fault in faults):
        raise InvalidMessage(faults)
    known = {name: item for name, item in envelope.defaults.items() if name in Message.model_fields}
    return OpenedBatch(envelope.model_copy(update={"defaults": known}), faults, wrong)


def no_object() -> Entry:
    return _refused("not_an_object", "an entry of the batch is not an object", "Make it an object")


def _agreed(value: Mapping[str, Any], channel: Channel, lane: Lane) -> dict[str, Any]:
    """The queue's channel and lane. If the message names others, they are marked, and refused later."""
    agreed: dict[str, Any] = {}
    for field, known in (("channel", channel), ("lane", lane)):
        if value.get(field) in (None, known):
            agreed[field] = known
        elif isinstance(value[field], str):
            agreed[field] = _Disagreement(known)
    return agreed


@dataclass(frozen=True, slots=True)
class _Disagreement:
    """Marks a channel or lane that differs from the queue's. No enum accepts it, and `faults_of` names the fix."""

    known: str


def _check_attachments(message: Message, channel: Channel) -> list[Fault]:
    if not message.attachments or channel is Channel.EMAIL:
        return []
    return [Fault("attachments", "attachments_not_here", f"{channel} carries no files", "Send a link, or a mail")]


def _check_times(message: Message, now: datetime) -> list[Fault]:
    faults = send_at_faults(message.send_at, now) if message.send_at else []
    if message.id is not None:
        faults += _check_id_time(time_of_id(message.id) - now)
    return faults


def send_at_faults(send_at: datetime, now: datetime) -> list[Fault]:
    """Why a notification may not have this `send_at`."""
    if send_at > now + MAX_SCHEDULE_AHEAD:
        fix = f"Schedule at most {MAX_SCHEDULE_AHEAD.days} days ahead"
        return [Fault("send_at", "too_far_ahead", "too far in the future", fix)]
    if send_at < now - MAX_AGE:
        fix = f"Leave it out, or use a time within the last {MAX_AGE.days} days"
        return [Fault("send_at", "too_long_ago", "too far in the past", fix)]
    return []


def may_become(notification_id: UUID, now: datetime) -> bool:
    """Whether a message with this id would be accepted if nothing else is wrong with it."""
    return notification_id.version == 7 and not _check_id_time(time_of_id(notification_id) - now)


def _check_id_time(ahead: timedelta) -> list[Fault]:
    """The time in an id decides where in the record its notification is stored, and for how long."""
    if -MAX_AGE < ahead < MAX_CLOCK_SKEW:
        return []
    far = f"{abs(ahead) / timedelta(days=1):.1f} days {'ahead of' if ahead > timedelta(0) else 'behind'}"
    limits = f"it may be {MAX_CLOCK_SKEW.days} ahead or {MAX_AGE.days} behind"
    problem = f"the time inside the UUIDv7 is {far} the service's clock; {limits}"
    return [Fault("id", "bad_id_time", problem, "Set the clock of the machine that makes it, and publish at once")]


#: Replaces pydantic's error type if a text must not be empty but is.
_EMPTY = "empty"
#: pydantic's error type → (our code, problem, fix). The texts may use the context of the error.
_TEXTS: Mapping[str, tuple[str, str, str]] = {
    "missing": ("missing", "is missing", "Add it"),
    "extra_forbidden": ("unknown_field", "is not a field of the contract", "Remove it, or move it into metadata"),
    "string_unicode": ("bad_utf8", "holds half a character", "Send whole Unicode text"),
    "string_type": ("wrong_type", "is not a string", "Send a string"),
    "dict_type": ("wrong_type", "is not an object", "Send a JSON object"),
    "list_type": ("wrong_type", "is not a list", "Send a JSON list"),
    "string_too_short": ("too_short", "is shorter than {min_length} characters", "Send a longer one"),
    _EMPTY: ("too_short", "is empty", "Give it a value, or leave it out if it may be missing"),
    "literal_error": ("bad_format", "is not {expected}", "Write exactly that, as text"),
    "string_too_long": ("too_long", "is longer than {max_length} characters", "Shorten it"),
    "too_long": ("too_long", "has more than {max_length} entries", "Send fewer"),
    "too_short": ("too_short", "has no entries", "Send at least one"),
    "string_pattern_mismatch": ("bad_format", "does not match {pattern}", "Follow that pattern"),
    "enum": ("bad_choice", "is not one of {expected}", "Use one of them"),
}


def faults_of(error: ValidationError) -> tuple[Fault, ...]:
    return few(_fault_of(detail) for detail in error.errors(include_url=False))


def _fault_of(detail: Any) -> Fault:
    field = ".".join(str(part) for part in detail["loc"])[:200].replace("\0", "?")
    context = detail.get("ctx", {})
    if detail["type"] == "contract":
        return Fault(field, context["code"], context["problem"], context["fix"])
    if isinstance(detail["input"], _Disagreement):
        fix = "Publish it to the queue it belongs to, or leave it out"
        return Fault(field, "queue_mismatch", f"is not the {field} of the queue it came through", fix)
    is_empty = detail["type"] == "string_too_short" and context["min_length"] == 1
    code, problem, fix = _TEXTS.get(
        _EMPTY if is_empty else detail["type"], ("invalid", detail["msg"], "See `notifier schema message`")
    )
    return Fault(field, code, problem.format(**context), fix)
