"""The client for producers: publishes messages, with a time limit on every call.

    from notifier import Client

    with Client("amqp://shop:…@broker/", producer="shop") as client:
        handle = client.send("order_shipped", to="ann@example.com", context={"order_number": "A-1001"})

`send` returns when the broker has confirmed that it holds the message. If it raises `PublishFailed`, send again
with the same `idempotency_key`: the service accepts the message once.

A producer with its own database does not depend on the broker: with `outbox=session` the message becomes a row in
the producer's transaction, and a relay publishes it later (`notifier.client.outbox`).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, Unpack
from uuid import UUID

from notifier.broker.batch_form import portions
from notifier.broker.publisher import Wire
from notifier.client.addresses import ApiOptions, ApiSearch, find_broker
from notifier.client.conversations import Asked, ask_status, wait_for
from notifier.client.handles import Handle
from notifier.client.messages import Encoded, MessageEncoder
from notifier.client.notifier_result import NotifierResult
from notifier.client.service_api import ServiceApi
from notifier.domain.errors import Fault
from notifier.domain.message import Message
from notifier.domain.notification_status import NotificationStatus
from notifier.domain.statuses import Channel, Lane

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, scoped_session

    from notifier.client.template_check import TemplateCheck

    #: The types that `outbox=` accepts: the message's row is written in this transaction.
    SqlTransaction = Session | scoped_session[Any] | Connection


class Messages(MessageEncoder, ABC):
    """Turns arguments into checked messages; subclasses send them."""

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

        `context` holds the template's variables; `notifier.client.context_values` lists the types of its values.
        `channel` defaults to sms if the recipient begins with +, otherwise to email. `lane` is urgent, normal or
        bulk. `fields` are the other fields of the contract: idempotency_key, id, producer, locale, sender,
        reply_to, reference, metadata, send_at, expires_at (aware datetimes or RFC 3339 strings), callback_url,
        attachments (ids of files uploaded over HTTP), traceparent (default: the current OpenTelemetry span, if
        there is one).

        Raises:
            InvalidMessage: nothing was published; `faults` lists everything that is wrong.
            PublishFailed: the broker did not confirm within `timeout_seconds`. Never raised with `outbox`.
            PublishRefused: a `PublishFailed` that will not go away: publishing again does not help.
        """
        encoded = self.encode(template, to, context, channel, lane, fields)
        self._hand_over([encoded], outbox)
        return self._handle(encoded)

    def send_many(
        self,
        entries: Iterable[Mapping[str, Any]],
        *,
        channel: Channel | str,
        lane: Lane | str = Lane.BULK,
        outbox: SqlTransaction | None = None,
        **defaults: Any,
    ) -> list[Handle]:
        """Publish many messages of one channel and lane in a few broker messages. Far faster than `send` in a
        loop.

        Each entry holds fields of the contract. `defaults` apply to every entry that does not set them. All
        entries are checked before the first is published. With `outbox`, all of them become rows of that
        transaction.

        Raises:
            InvalidMessage: nothing was published; each fault's field begins with the entry's position, from 0.
            PublishFailed: some of the messages may have been published; repeat the call with the same idempotency
                keys.
        """
        found = self.encode_many(entries, channel, lane, defaults)
        self._hand_over(found, outbox)
        return [self._handle(encoded) for encoded in found]

    def _handle(self, encoded: Encoded) -> Handle:
        handle = Handle(encoded.id, encoded.message.key, encoded.channel, encoded.lane)
        return handle.asking(self._api, encoded.content_hash)

    @property
    def _api(self) -> ServiceApi | None:
        """The API that handles of this client ask; None: the API that the environment names."""
        return None

    @abstractmethod
    def _hand_over(self, messages: Sequence[Encoded], outbox: SqlTransaction | None) -> None:
        """Take messages of one channel and lane: accept all of them, or raise."""


class Client(Messages):
    """Publishes messages to RabbitMQ (amqp://) or to a Redis-protocol broker (redis://).

    Thread-safe. It has one connection, opened at the first call and again after a failure or a fork. Every call
    ends within `timeout_seconds` (default 5), whatever the broker does.

    `url` defaults to NOTIFIER_BROKER_URL, or else to the broker of the service that this user's `notifier up`
    runs. A producer that only writes to its outbox needs no URL: the relay has it. `outbox_table` is the name of
    the outbox table, with its schema if it has one.

    On RabbitMQ each message carries the URL's user as its `user_id`. The broker checks it, so the service knows
    that the message is from this producer. Set `broker_user` if RabbitMQ knows the connection by another name (a
    certificate, OAuth 2), or to "" to send no `user_id`.

    The client asks for the status of messages over HTTP, which needs the extra `http`; `ApiOptions` has the
    address and key. With `templates`, messages are checked against the service's templates before they are
    published.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        producer: str | None = None,
        timeout_seconds: float = 5.0,
        outbox_table: str = "notifier_outbox",
        broker_user: str | None = None,
        **api: Unpack[ApiOptions],
    ) -> None:
        super().__init__(producer=producer)
        self._timeout_seconds = timeout_seconds
        self._broker_user = broker_user
        # Connects to nothing yet, but reports an invalid URL at once.
        self._wire = self._make_wire(url) if url is not None else None
        self._finding = threading.Lock()
        self._outbox_table = outbox_table
        search = ApiSearch(url, **api)
        self._service_api = ServiceApi(search.find, timeout_seconds)
        listed = search.of_templates()
        self._templates = _template_check(listed) if listed else None

    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        if self._wire is not None:
            self._wire.close()
        self._service_api.close()
        if self._templates is not None:
            self._templates.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        # The URL holds a password.
        return f"Client(producer={self.producer!r})"

    def status(self, notification_id: UUID | str) -> NotificationStatus | None:
        """Return the current status of a notification by the id that you kept, like `Handle.status`."""
        return self._service_api.run(ask_status(Asked.by(notification_id)))

    def wait(self, notification_id: UUID | str, timeout: float) -> NotificationStatus:
        """Wait until the notification with this id is ready, like `Handle.wait`. `timeout` is in seconds."""
        return self._service_api.run(wait_for(Asked.by(notification_id), timeout))

    def result(self, notification_id: UUID | str | Handle) -> NotifierResult:
        """The notification as a `NotifierResult`, which has the names of Celery's `AsyncResult`."""
        return NotifierResult(notification_id, self._service_api)

    @property
    def _api(self) -> ServiceApi:
        return self._service_api

    def _template_faults(self, message: Message) -> list[Fault]:
        return self._templates.faults(message) if self._templates is not None else []

    def _channel_of(self, template: object) -> Channel | None:
        return self._templates.channel_of(template) if self._templates is not None else None

    def _hand_over(self, messages: Sequence[Encoded], outbox: SqlTransaction | None) -> None:
        if outbox is not None:
            # Imported here because producers without an outbox need no SQLAlchemy.
            from notifier.client.outbox import write

            write(outbox, ((e.id, e.channel, e.lane, e.body) for e in messages), table_name=self._outbox_table)
            return
        for portion in portions(messages, lambda encoded: encoded.body):
            first = portion[0]
            self._opened().publish(first.channel, first.lane, *(encoded.body for encoded in portion))

    def _opened(self) -> Wire:
        if self._wire is None:
            with self._finding:
                self._wire = self._wire or self._make_wire(find_broker(None))
        return self._wire

    def _make_wire(self, url: str) -> Wire:
        return Wire(url, timeout_seconds=self._timeout_seconds, broker_user=self._broker_user)


def _template_check(listed: ApiSearch) -> TemplateCheck:
    # Imported here because few producers use it, and it would slow down every start.
    from notifier.client.template_check import ANSWER_SECONDS, TemplateCheck

    return TemplateCheck(ServiceApi(listed.find, ANSWER_SECONDS))


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message that a `RecordingClient` took."""

    message: Message
    handle: Handle


class RecordingClient(Messages):
    """A client for producers' own tests: checks messages like `Client`, publishes nothing, and keeps every message
    in `sent`. That includes messages sent with `outbox=`, even if the transaction is rolled back."""

    def __init__(self, *, producer: str | None = "test") -> None:
        super().__init__(producer=producer)
        self.sent: list[Recorded] = []

    def _hand_over(self, messages: Sequence[Encoded], outbox: SqlTransaction | None) -> None:
        self.sent.extend(Recorded(encoded.message, self._handle(encoded)) for encoded in messages)
