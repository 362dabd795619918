"""For producers on asyncio: send over the HTTP API, and await what becomes of it.

    from notifier import AsyncClient

    async with AsyncClient() as client:
        handle = await client.send("order_shipped", to="ann@example.com", context={"order_number": "A-1001"})
        status = await handle.wait(timeout=10)

`send` returns when the message is in the record. It needs the extra `http`, no broker.
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

#: Stands where the producer does in checks; over HTTP it is the key's.
_OF_THE_KEY = "of-the-key"


class AsyncClient(MessageEncoder):
    """Sends over HTTP. For one event loop; close it, or use it in `async with`.

    Address and key are `api_url` and `api_key`, or NOTIFIER_API_URL and NOTIFIER_API_KEY, or those of the service
    that `notifier up` of this user runs, looked up at the first call. `producer` is known from the key; if it is
    given, the service checks it. Each answer is waited for at most `timeout_seconds` (default 5).
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
        """Send one message; everything as in `Client.send`, without `outbox`.

        Raises:
            InvalidMessage: it was not accepted; `faults` lists everything that is wrong. What only the service
                knows is missing there while it does not answer, if the message breaks the contract.
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
        """Send many messages of one channel and lane, up to 1000 in a request; as in `Client.send_many`.

        Raises:
            InvalidMessage: some were not accepted; fields begin with an entry's position, from 0. If one breaks
                the contract, none was sent, and `faults` is about all of them; otherwise the others were accepted.
            PublishFailed, PublishRefused: as `send`; some may have been accepted. Repeat the call with the same
                idempotency keys.
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
        """Where the notification with this id stands; as `Handle.status`."""
        return await self._api.run(ask_status(Asked.by(notification_id)))

    async def wait(self, notification_id: UUID | str, timeout: float) -> NotificationStatus:
        """The same once it is ready; as `Handle.wait`."""
        return await self._api.run(wait_for(Asked.by(notification_id), timeout))

    async def close(self) -> None:
        await self._api.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _against(self, messages: Iterable[Mapping[str, Any]]) -> list[Fault]:
        """What the service says against messages that are not sent; fields begin with their positions, from 0."""
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
    """As the API takes it: without the producer, if only its key tells that."""
    if encoded.message.producer != _OF_THE_KEY:
        return encoded.body
    return encoded.message.model_copy(update={"producer": None}).encode()
