"""For producers: publish messages, with a deadline on every call.

    from notifier import Client

    with Client("amqp://shop:…@broker/", producer="shop") as client:
        handle = client.send("order_shipped", to="ann@example.com", context={"order_number": "A-1001"})

`send` returns when the broker has confirmed that it holds the message. If it raises `PublishFailed`, send again
with the same `idempotency_key`: the service accepts it once.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from amqp.exceptions import AccessRefused, NotFound
from kombu import Connection, Producer
from kombu.exceptions import KombuError
from pydantic import ValidationError

from notifier import topology
from notifier.errors import Fault, InvalidMessage, PublishFailed
from notifier.message import MAX_BATCH_ENTRIES, MAX_BODY_BYTES, Message, check, faults_of, new_id
from notifier.status import Channel, Lane


@dataclass(frozen=True, slots=True)
class Handle:
    """What a producer keeps: the ids to ask about it later."""

    #: Id of the notification. If the idempotency key was accepted before, the first one keeps its own.
    id: UUID
    #: The key under which sending again is safe: the one given, or the id.
    idempotency_key: str
    channel: Channel
    lane: Lane


class _Messages(ABC):
    """From arguments to checked messages; how their bytes travel is the subclass's."""

    def __init__(self, *, producer: str | None = None, timeout_seconds: float = 5.0) -> None:
        self.producer = producer
        self.timeout_seconds = timeout_seconds

    def send(
        self,
        template: str,
        to: str,
        *,
        context: Mapping[str, Any] | None = None,
        channel: Channel | str | None = None,
        lane: Lane | str = Lane.NORMAL,
        **fields: Any,
    ) -> Handle:
        """Publish one message.

        `channel` is sms for a recipient that begins with +, otherwise email. `fields` are the other fields of the
        contract: idempotency_key, id, producer, locale, sender, reply_to, reference, metadata, send_at,
        expires_at (aware datetimes or RFC 3339 strings), callback_url.

        Raises:
            InvalidMessage: nothing was published; `faults` lists everything that is wrong.
            PublishFailed: no confirmation within `timeout_seconds` in total.
        """
        entry = {"template": template, "to": to, "context": dict(context or {}), **fields}
        to_channel, to_lane = _channel(channel, to), _lane(lane)
        message = self._message(entry, to_channel, to_lane)
        self._publish(to_channel, to_lane, [message], message.encode())
        return _handle(message)

    def send_many(
        self,
        entries: Iterable[Mapping[str, Any]],
        *,
        channel: Channel | str,
        lane: Lane | str = Lane.BULK,
        **defaults: Any,
    ) -> list[Handle]:
        """Publish many messages of one channel and lane in few broker messages. Far faster than `send` in a loop.

        Each entry holds fields of the contract; `defaults` are for every entry that does not set them. All entries
        are checked before the first is published.

        Raises:
            InvalidMessage: nothing was published; fields are prefixed with the entry's position, from 0.
            PublishFailed: some chunks may have been published; repeat the call with the same idempotency keys.
        """
        to_channel, to_lane = _channel(channel, ""), _lane(lane)
        messages: list[Message] = []
        faults: list[Fault] = []
        for position, entry in enumerate(entries):
            try:
                messages.append(self._message({**defaults, **entry}, to_channel, to_lane))
            except InvalidMessage as error:
                faults.extend(
                    Fault(f"{position}.{fault.field}".rstrip("."), fault.code, fault.problem, fault.fix)
                    for fault in error.faults
                )
        if faults:
            raise InvalidMessage(faults)
        for chunk in _chunks(messages):
            body = b'{"batch":[' + b",".join(encoded for _, encoded in chunk) + b"]}"
            self._publish(to_channel, to_lane, [message for message, _ in chunk], body)
        return [_handle(message) for message in messages]

    def _message(self, fields: Mapping[str, Any], channel: Channel, lane: Lane) -> Message:
        filled = {"id": new_id(), "producer": self.producer, **fields, "channel": channel, "lane": lane}
        filled = {name: value for name, value in filled.items() if value is not None}
        try:
            return check(Message.model_validate(filled), channel, lane)
        except ValidationError as error:
            raise InvalidMessage(faults_of(error)) from None

    @abstractmethod
    def _publish(self, channel: Channel, lane: Lane, messages: Sequence[Message], body: bytes) -> None:
        """Hand over `body`, which holds `messages`, or raise PublishFailed."""


class Client(_Messages):
    """Publishes to RabbitMQ (amqp://) or to a Redis-protocol broker (redis://).

    Thread-safe; one connection, made at the first call and again after a failure or a fork. Every call ends
    within `timeout_seconds` (default 5), whatever the broker does.
    """

    def __init__(self, url: str, *, producer: str | None = None, timeout_seconds: float = 5.0) -> None:
        super().__init__(producer=producer, timeout_seconds=timeout_seconds)
        self._url = url
        self._is_redis = topology.is_redis(url)
        known = Connection(url)  # opens nothing
        self._errors = (KombuError, OSError, *known.connection_errors, *known.channel_errors)
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._pid = os.getpid()

    def close(self) -> None:
        """Close the connection. The next call opens a new one."""
        with self._lock:
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        # The URL holds a password.
        return f"Client(producer={self.producer!r})"

    def _publish(self, channel: Channel, lane: Lane, messages: Sequence[Message], body: bytes) -> None:
        ends_at = time.monotonic() + self.timeout_seconds
        if not self._lock.acquire(timeout=self.timeout_seconds):
            raise PublishFailed(f"the connection was busy for {self.timeout_seconds:g} s; publish again")
        try:
            self._publish_within(ends_at, channel, lane, body)
        finally:
            self._lock.release()

    def _publish_within(self, ends_at: float, channel: Channel, lane: Lane, body: bytes) -> None:
        """Once, and once more on a new connection: an idle one may have died, queues may not be declared yet."""
        for is_last in (False, True):
            remaining = ends_at - time.monotonic()
            if remaining <= 0:
                raise PublishFailed(f"the broker did not answer within {self.timeout_seconds:g} s; publish again")
            try:
                self._publish_once(remaining, channel, lane, body)
            except self._errors as error:
                # A confirmation that comes late would be taken for the next message's: never reuse it.
                self._drop()
                if is_last:
                    raise _failed(error) from error
                if isinstance(error, NotFound) or getattr(error, "reply_code", 0) == _NO_ROUTE:
                    self._declare(max(0.1, ends_at - time.monotonic()))
            else:
                return

    def _publish_once(self, remaining: float, channel: Channel, lane: Lane, body: bytes) -> None:
        producer = self._open(remaining)
        options: dict[str, Any] = {"timeout": remaining, "confirm_timeout": remaining, "mandatory": True}
        exchange, key = topology.NOTIFY.name, topology.routing_key(channel, lane)
        if self._is_redis:
            # Straight into the list: bindings on a Redis-protocol broker can vanish, and messages with them.
            exchange, key, options = "", topology.notify_queue_name(channel, lane), {}
        producer.publish(
            body,
            exchange=exchange,
            routing_key=key,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            **options,
        )

    def _open(self, timeout: float) -> Producer:
        if self._pid != os.getpid():
            # The parent's socket is not ours: leave it alone.
            self._connection = self._producer = None
            self._pid = os.getpid()
        if self._producer is None:
            options = topology.transport_options(self._url, timeout_seconds=self.timeout_seconds)
            self._connection = Connection(self._url, connect_timeout=timeout, transport_options=options)
            self._producer = Producer(self._connection.channel(), auto_declare=False)
        return self._producer

    def _declare(self, timeout: float) -> None:
        """The queues are not there yet. A producer that may not declare them is told what to do."""
        options = topology.transport_options(self._url, timeout_seconds=timeout)
        try:
            with Connection(self._url, connect_timeout=timeout, transport_options=options) as connection:
                topology.declare_for_producers(connection.channel())
        except AccessRefused:
            raise PublishFailed(
                "the queues do not exist and this user may not declare them: start the service once, then publish"
            ) from None
        except self._errors as error:
            raise _failed(error) from error

    def _drop(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None and self._pid == os.getpid():
            try:
                connection.release()
            except Exception:  # noqa: S110 - it is being thrown away
                pass


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message that a `RecordingClient` took."""

    message: Message
    handle: Handle


class RecordingClient(_Messages):
    """For producers' own tests: checks like `Client`, publishes nothing, keeps everything in `sent`."""

    def __init__(self, *, producer: str | None = "test") -> None:
        super().__init__(producer=producer)
        self.sent: list[Recorded] = []

    def _publish(self, channel: Channel, lane: Lane, messages: Sequence[Message], body: bytes) -> None:
        self.sent.extend(Recorded(message, _handle(message)) for message in messages)


_Choice = TypeVar("_Choice", Channel, Lane)

_NO_ROUTE = 312  # AMQP 0-9-1 reply code: a mandatory message that no queue took


def _failed(error: Exception) -> PublishFailed:
    # Only the kind of the error: its text may hold the broker's URL.
    return PublishFailed(f"the broker did not confirm the message ({type(error).__name__}); publish again")


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


def _handle(message: Message) -> Handle:
    return Handle(
        message.id or new_id(), message.key, message.channel or Channel.EMAIL, message.lane or Lane.NORMAL
    )


def _chunks(messages: list[Message]) -> Iterator[list[tuple[Message, bytes]]]:
    """The messages with their JSON, in portions that keep the batch form's limits of entries and bytes."""
    budget = MAX_BODY_BYTES - len(b'{"batch":[]}')
    chunk: list[tuple[Message, bytes]] = []
    size = 0
    for message in messages:
        encoded = message.encode()
        if chunk and (len(chunk) == MAX_BATCH_ENTRIES or size + len(encoded) + 1 > budget):
            yield chunk
            chunk, size = [], 0
        chunk.append((message, encoded))
        size += len(encoded) + 1
    if chunk:
        yield chunk
