"""The client for asyncio: sends messages over the HTTP API and awaits what becomes of them.

    from notifier import AsyncClient

    async with AsyncClient() as client:
        handle = await client.send("order_shipped", to="ann@example.com", context={"order_number": "A-1001"})
        status = await handle.wait(timeout=10)

`send` returns when the message is in the service's record. It needs the extra `http`, but no broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self, cast
from uuid import UUID

from notifier.broker.batch_form import portions
from notifier.client.addresses import ApiSearch
from notifier.client.conversations import Asked, ask_status, publish, publish_batch, wait_for
from notifier.client.handles import AsyncHandle
from notifier.client.messages import Encoded, MessageEncoder
from notifier.client.refused_messages import ask_against, beside, by_position, entry_of, of_the_only
from notifier.client.service_api import AsyncServiceApi
from notifier.domain.assumed_channel import by_recipient, is_neither
from notifier.domain.errors import ConfigurationError, Fault, InvalidMessage, few
from notifier.domain.message import new_id
from notifier.domain.notification_status import NotificationStatus
from notifier.domain.statuses import Channel, Lane

#: Stands for the producer when a message is checked: over HTTP the producer is known from the key.
_OF_THE_KEY = "of-the-key"


class AsyncClient(MessageEncoder):
    """Sends messages over HTTP. Use one client in one event loop; close it, or use it in `async with`.

    `api_url` and `api_key` default to NOTIFIER_API_URL and NOTIFIER_API_KEY, or else to the service that this
    user's `notifier up` runs. They are looked up at the first call. The service knows the producer from the key;
    if you give `producer`, the service checks that it matches. `timeout_seconds` (default 5) limits the wait for
    each answer.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        producer: str | None = None,
        timeout_seconds: float = 5.0,
    ) -> None:
        super().__init__(producer=producer or _OF_THE_KEY)
        self._api = AsyncServiceApi(ApiSearch(None, api_url, api_key).find, timeout_seconds)

    async def send(
        self,
        template: str,
        to: str,
        *,
        context: Mapping[str, Any] | None = None,
        channel: Channel | str | None = None,
        lane: Lane | str = Lane.NORMAL,
        **fields: Any,
    ) -> AsyncHandle:
        """Send one message. Arguments are those of `Client.send`, without `outbox`.

        Raises:
            InvalidMessage: the message was not accepted; `faults` lists everything that is wrong. If the message
                breaks the contract and the service does not answer, faults that only the service can find are
                missing.
            PublishFailed: the service did not answer; send again with the same idempotency key.
            PublishRefused: the service refuses the key.
        """
        try:
            encoded = self.encode(template, to, context, channel, lane, fields)
        except InvalidMessage as error:
            told = channel if channel is not None or is_neither(to) else by_recipient(to)
            entry = {"template": template, "to": to, "context": context, **fields, "channel": told, "lane": lane}
            of_service = (fault for fault in await self._against([entry]) if told or fault.field != "0.channel")
            raise InvalidMessage(few(beside(error.faults, of_the_only(of_service)))) from None
        return self._handle(encoded, await self._api.run(publish(_body(encoded))))

    async def send_many(
        self,
        entries: Iterable[Mapping[str, Any]],
        *,
        channel: Channel | str,
        lane: Lane | str = Lane.BULK,
        **defaults: Any,
    ) -> list[AsyncHandle]:
        """Send many messages of one channel and lane, up to 1000 in each request. Arguments are those of
        `Client.send_many`.

        Raises:
            InvalidMessage: some messages were not accepted; each fault's field begins with the entry's position,
                from 0. If any entry breaks the contract, nothing was sent and `faults` covers all entries;
                otherwise the other entries were accepted.
            PublishFailed, PublishRefused: as for `send`, but some messages may have been accepted. Repeat the call
                with the same idempotency keys.
        """
        given = list(entries)
        try:
            checked = self.encode_many(given, channel, lane, defaults)
        except InvalidMessage as error:
            shared = {**defaults, "channel": channel, "lane": lane}
            of_service = await self._against(
                {**shared, **entry} if isinstance(cast("object", entry), Mapping) else entry for entry in given
            )
            raise InvalidMessage(by_position(beside(error.faults, of_service))) from None
        messages = [(encoded, _body(encoded)) for encoded in checked]
        handles: list[AsyncHandle] = []
        faults: list[Fault] = []
        first = 0
        for portion in portions(messages, lambda message: message[1]):
            try:
                answers = await self._api.run(publish_batch([body for _, body in portion], first))
            except InvalidMessage as error:
                answers = [list(error.faults)]
            for (encoded, _), answer in zip(portion, answers, strict=False):
                if isinstance(answer, UUID):
                    handles.append(self._handle(encoded, answer))
                else:
                    faults += answer
            first += len(portion)
        if faults:
            raise InvalidMessage(faults)
        return handles

    async def status(self, notification_id: UUID | str) -> NotificationStatus | None:
        """Return the current status of the notification with this id, like `Handle.status`."""
        return await self._api.run(ask_status(Asked.by(notification_id)))

    async def wait(self, notification_id: UUID | str, timeout: float) -> NotificationStatus:
        """Wait until the notification with this id is ready, like `Handle.wait`. `timeout` is in seconds."""
        return await self._api.run(wait_for(Asked.by(notification_id), timeout))

    async def close(self) -> None:
        await self._api.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _against(self, messages: Iterable[Mapping[str, Any]]) -> list[Fault]:
        """The service's faults in messages that are not sent; fields begin with the entry's position, from 0."""
        known: dict[str, Any] = {} if self.producer == _OF_THE_KEY else {"producer": self.producer}
        entries = [entry_of({**known, "id": new_id(), **of} if isinstance(of, Mapping) else of) for of in messages]
        found: list[Fault] = []
        first = 0
        for portion in portions(entries, lambda entry: entry):
            try:
                faults = await self._api.run(ask_against(portion, first))
            except ConfigurationError:
                break
            if faults is None:
                break
            found += faults
            first += len(portion)
        return found

    def _handle(self, encoded: Encoded, notification_id: UUID) -> AsyncHandle:
        return AsyncHandle(notification_id, encoded.message.key, encoded.channel, encoded.lane, self._api)


def _body(encoded: Encoded) -> bytes:
    """The message as the API takes it: without `producer` if only the key tells who the producer is."""
    if encoded.message.producer != _OF_THE_KEY:
        return encoded.body
    return encoded.message.model_copy(update={"producer": None}).encode()
