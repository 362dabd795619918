"""For producers: publish messages, with a deadline on every call.

    from notifier import Client

    with Client("amqp://shop:…@broker/", producer="shop") as client:
        handle = client.send("order_shipped", to="ann@example.com", context={"order_number": "A-1001"})

`send` returns when the broker has confirmed that it holds the message. If it raises `PublishFailed`, send again
with the same `idempotency_key`: the service accepts it once.

A producer with a database of its own need not care whether the broker is there: with `outbox=session` the message
becomes a row of its transaction, and a relay publishes it (`notifier.client.outbox`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from pydantic import ValidationError

from notifier.broker.batch_form import MAX_ENTRY_BYTES, portions
from notifier.broker.publisher import Wire
from notifier.client.current_span import current_traceparent
from notifier.domain.errors import ConfigurationError, Fault, InvalidMessage
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import check, faults_of

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, scoped_session

    #: The type of `outbox=`: the row is written in its transaction.
    SqlTransaction = Session | scoped_session[Any] | Connection


@dataclass(frozen=True, slots=True)
class Handle:
    """What a producer keeps: the ids to ask about it later."""

    #: Id of the notification. If the idempotency key was accepted before, that notification keeps its own id.
    id: UUID
    #: The key under which sending again is safe: the one given, or the id.
    idempotency_key: str
    channel: Channel
    lane: Lane


@dataclass(frozen=True, slots=True)
class Encoded:
    """A message that passed every check, with its JSON."""

    message: Message
    body: bytes

    @property
    def handle(self) -> Handle:
        message = self.message
        assert message.id is not None
        assert message.channel is not None
        assert message.lane is not None
        return Handle(message.id, message.key, message.channel, message.lane)


class Messages(ABC):
    """Turns arguments into checked messages; subclasses send them."""

    def __init__(self, *, producer: str | None = None) -> None:
        self.producer = producer

    def send(
        self,
        template: str,
        to: str,
        *,
        context: Mapping[str, Any] | None = None,
        channel: Channel | str | None = None,
        lane: Lane | str = Lane.NORMAL,
        outbox: SqlTransaction | None = None,
        **fields: Any,
    ) -> Handle:
        """Publish one message, or with `outbox` write it into the producer's own transaction.

        `channel` is sms for a recipient that begins with +, otherwise email. `fields` are the other fields of the
        contract: idempotency_key, id, producer, locale, sender, reply_to, reference, metadata, send_at,
        expires_at (aware datetimes or RFC 3339 strings), callback_url, attachments (ids of files that were
        uploaded over HTTP), traceparent (default: the caller's OpenTelemetry span, if it has one).

        Raises:
            InvalidMessage: nothing was published; `faults` lists everything that is wrong.
            PublishFailed: no confirmation within `timeout_seconds` in total; never with `outbox`.
        """
        entry = {"template": template, "to": to, "context": dict(context or {}), **fields}
        encoded = self._encode(entry, _channel(channel, to), _lane(lane))
        self._hand_over([encoded], outbox)
        return encoded.handle

    def send_many(
        self,
        entries: Iterable[Mapping[str, Any]],
        *,
        channel: Channel | str,
        lane: Lane | str = Lane.BULK,
        outbox: SqlTransaction | None = None,
        **defaults: Any,
    ) -> list[Handle]:
        """Publish many messages of one channel and lane in few broker messages. Far faster than `send` in a loop.

        Each entry holds fields of the contract; `defaults` are for every entry that does not set them. All entries
        are checked before the first is published. With `outbox` all of them become rows of that transaction.

        Raises:
            InvalidMessage: nothing was published; fields are prefixed with the entry's position, from 0.
            PublishFailed: some chunks may have been published; repeat the call with the same idempotency keys.
        """
        to_channel, to_lane = _channel(channel, ""), _lane(lane)
        found: list[Encoded] = []
        faults: list[Fault] = []
        for position, entry in enumerate(entries):
            try:
                found.append(self._encode({**defaults, **entry}, to_channel, to_lane))
            except InvalidMessage as error:
                faults.extend(
                    Fault(f"{position}.{fault.field}".rstrip("."), fault.code, fault.problem, fault.fix)
                    for fault in error.faults
                )
        if faults:
            raise InvalidMessage(faults)
        self._hand_over(found, outbox)
        return [encoded.handle for encoded in found]

    def _encode(self, fields: Mapping[str, Any], channel: Channel, lane: Lane) -> Encoded:
        known = {"id": new_id(), "producer": self.producer, "traceparent": current_traceparent()}
        filled = {**known, **fields, "channel": channel, "lane": lane}
        filled = {name: value for name, value in filled.items() if value is not None}
        try:
            message = check(Message.model_validate(filled), channel, lane)
        except ValidationError as error:
            raise InvalidMessage(faults_of(error)) from None
        encoded = Encoded(message, message.encode())
        if len(encoded.body) > MAX_ENTRY_BYTES:
            fix = f"Send at most {MAX_ENTRY_BYTES} bytes a message"
            raise InvalidMessage([Fault("", "too_large", f"{len(encoded.body)} bytes", fix)])
        return encoded

    @abstractmethod
    def _hand_over(self, messages: Sequence[Encoded], outbox: SqlTransaction | None) -> None:
        """Take messages of one channel and lane: all, or raise."""


class Client(Messages):
    """Publishes to RabbitMQ (amqp://) or to a Redis-protocol broker (redis://).

    Thread-safe; one connection, made at the first call and again after a failure or a fork. Every call ends
    within `timeout_seconds` (default 5), whatever the broker does.

    A producer that writes to its outbox only needs no `url`: the relay has it. `outbox_table` is the name of its
    outbox, with its schema if it has one.

    On RabbitMQ each message names the user of the URL as its `user_id`, which the broker checks: so the service
    knows that it is from this producer. `broker_user` is another name, for connections that RabbitMQ knows by
    another (a certificate, OAuth 2), or "" for none.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        producer: str | None = None,
        timeout_seconds: float = 5.0,
        outbox_table: str = "notifier_outbox",
        broker_user: str | None = None,
    ) -> None:
        super().__init__(producer=producer)
        self._wire = (
            Wire(url, timeout_seconds=timeout_seconds, broker_user=broker_user) if url is not None else None
        )
        self._outbox_table = outbox_table

    def close(self) -> None:
        """Close the connection. The next call opens a new one."""
        if self._wire is not None:
            self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        # The URL holds a password.
        return f"Client(producer={self.producer!r})"

    def _hand_over(self, messages: Sequence[Encoded], outbox: SqlTransaction | None) -> None:
        if outbox is not None:
            # Imported here: producers without an outbox need no SQLAlchemy.
            from notifier.client.outbox import write

            rows = ((e.handle.id, e.handle.channel, e.handle.lane, e.body) for e in messages)
            write(outbox, rows, table_name=self._outbox_table)
            return
        if self._wire is None:
            raise ConfigurationError(
                "this client has no broker: give it a URL, or send with outbox=", setting="NOTIFIER_BROKER_URL"
            )
        for portion in portions(messages, lambda encoded: encoded.body):
            first = portion[0].handle
            self._wire.publish(first.channel, first.lane, *(encoded.body for encoded in portion))


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message that a `RecordingClient` took."""

    message: Message
    handle: Handle


class RecordingClient(Messages):
    """For producers' own tests: checks like `Client`, publishes nothing, keeps everything in `sent`, also what was
    sent with `outbox=`, whatever becomes of the transaction."""

    def __init__(self, *, producer: str | None = "test") -> None:
        super().__init__(producer=producer)
        self.sent: list[Recorded] = []

    def _hand_over(self, messages: Sequence[Encoded], outbox: SqlTransaction | None) -> None:
        self.sent.extend(Recorded(encoded.message, encoded.handle) for encoded in messages)


_Choice = TypeVar("_Choice", Channel, Lane)


def _channel(channel: Channel | str | None, to: str) -> Channel:
    if channel is None:
        return Channel.SMS if to.startswith("+") else Channel.EMAIL
    return _choice(Channel, "channel", channel)


def _lane(lane: Lane | str) -> Lane:
    return _choice(Lane, "lane", lane)


def _choice(kind: type[_Choice], name: str, value: str) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(kind)
        raise InvalidMessage([Fault(name, "bad_choice", f"is none of {known}", "Use one of them")]) from None
