"""Turns arguments into checked messages and their JSON, for every way of sending them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from uuid import UUID

from notifier.broker.batch_form import MAX_ENTRY_BYTES
from notifier.client.context_values import as_json
from notifier.client.current_span import current_traceparent
from notifier.domain.assumed_channel import assumed_channel, by_recipient, is_neither, of_no_channel
from notifier.domain.errors import Fault, InvalidMessage, few
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import Entry, read_message
from notifier.security.body_hash import body_hash


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message that passed every check, and its JSON."""

    message: Message
    body: bytes
    #: The producer chose the id, so another message may already have it.
    is_id_given: bool = False

    @property
    def id(self) -> UUID:
        assert self.message.id is not None
        return self.message.id

    @property
    def channel(self) -> Channel:
        assert self.message.channel is not None
        return self.message.channel

    @property
    def lane(self) -> Lane:
        assert self.message.lane is not None
        return self.message.lane

    @property
    def content_hash(self) -> str | None:
        """The hash by which the service tells this message from another one with its id or key. None: both are
        new."""
        is_new = self.message.idempotency_key is None and not self.is_id_given
        return None if is_new else body_hash(self.message).hex()


class MessageEncoder:
    """Checks and encodes messages of one producer."""

    def __init__(self, *, producer: str | None = None) -> None:
        self.producer = producer

    def encode(
        self,
        template: str,
        to: str,
        context: Mapping[str, Any] | None,
        channel: Channel | str | None,
        lane: Lane | str,
        fields: Mapping[str, Any],
    ) -> Encoded:
        """Check and encode one message. Raises `InvalidMessage` with everything that is wrong."""
        entry = {"template": template, "to": to, "context": {} if context is None else context, **fields}
        is_assumed = channel is None and is_neither(to)
        assumed = by_recipient(to) if channel else assumed_channel(to, template, self._channel_of)
        faults: list[Fault] = []
        known = assumed if channel is None else _choice(Channel, "channel", channel, assumed, faults)
        known_lane = _choice(Lane, "lane", lane, Lane.NORMAL, faults)
        try:
            encoded = self._encode(entry, known, known_lane)
        except InvalidMessage as error:
            found = map(of_no_channel, error.faults) if is_assumed else error.faults
            raise InvalidMessage(few([*faults, *found])) from None
        if faults:
            raise InvalidMessage(faults)
        return encoded

    def encode_many(
        self,
        entries: Iterable[Mapping[str, Any]],
        channel: Channel | str,
        lane: Lane | str,
        defaults: Mapping[str, Any],
    ) -> list[Encoded]:
        """Check and encode many messages. Raises `InvalidMessage` with everything that is wrong; each field begins
        with the entry's position, from 0."""
        found: list[Encoded] = []
        faults: list[Fault] = []
        to_channel = _choice(Channel, "channel", channel, None, faults)
        to_lane = _choice(Lane, "lane", lane, Lane.BULK, faults)
        for position, entry in enumerate(entries):
            if not isinstance(cast("object", entry), Mapping):
                problem = f"is of type {type(entry).__name__}, not a message's fields"
                faults.append(Fault(str(position), "not_an_object", problem, "Give a dictionary"))
                continue
            fields = {**defaults, **entry}
            try:
                found.append(self._encode(fields, to_channel or by_recipient(fields.get("to")), to_lane))
            except InvalidMessage as error:
                faults.extend(
                    Fault(f"{position}.{fault.field}".rstrip("."), fault.code, fault.problem, fault.fix)
                    for fault in error.faults
                )
        if faults:
            raise InvalidMessage(faults)
        return found

    def _encode(self, fields: Mapping[str, Any], channel: Channel, lane: Lane) -> Encoded:
        known = {"id": new_id(), "producer": self.producer, "traceparent": current_traceparent()}
        # An entry that names another channel or lane is refused, as in a batch of the contract.
        filled = {**known, "channel": channel, "lane": lane, **fields}
        filled = {name: value for name, value in filled.items() if value is not None}
        without_form: list[Fault] = []
        if isinstance(filled.get("context"), Mapping):
            filled["context"], without_form = as_json(filled["context"])
        try:
            entry = read_message(filled, channel, lane, now=datetime.now(UTC))
        except RecursionError:
            raise InvalidMessage([_TOO_DEEP]) from None
        faults = self._faults(entry, without_form)
        if entry.message is None or faults:
            raise InvalidMessage(faults)
        encoded = Encoded(entry.message, entry.message.encode(), fields.get("id") is not None)
        if len(encoded.body) > MAX_ENTRY_BYTES:
            fix = f"Send at most {MAX_ENTRY_BYTES} bytes a message"
            raise InvalidMessage([Fault("", "too_large", f"{len(encoded.body)} bytes", fix)])
        return encoded

    def _faults(self, entry: Entry, without_form: list[Fault]) -> tuple[Fault, ...]:
        draft = entry.message or (entry.draft and entry.draft.message)
        further = self._template_faults(draft) if draft else []
        if not (entry.faults or further or without_form):
            return ()
        known = {fault.field for fault in without_form}
        return few([*without_form, *(fault for fault in entry.with_further(further) if fault.field not in known)])

    def _template_faults(self, message: Message) -> list[Fault]:
        """Faults of this message against the service's templates, if they are known."""
        return []

    def _channel_of(self, template: object) -> Channel | None:
        """The only channel that has this template, if the service's templates are known."""
        return None


_Choice = TypeVar("_Choice", Channel, Lane)
_Default = TypeVar("_Default")

#: For a field other than the context, which has its own limit, that nests lists too deeply.
_TOO_DEEP = Fault("", "too_deep", "a field lies too deep to be read", "Send texts, times and plain lists")


def _choice(
    kind: type[_Choice], name: str, value: str, default: _Default, faults: list[Fault]
) -> _Choice | _Default:
    """Read `value`. If it is wrong, add a fault and return `default`, so that the rest can still be checked."""
    try:
        return kind(value)
    except (ValueError, RecursionError):
        faults.append(Fault(name, "bad_choice", f"is not one of {', '.join(kind)}", "Use one of them"))
        return default
