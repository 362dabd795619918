"""Handles: what a producer keeps of a message that it sent, to ask about it later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

from notifier.client.conversations import Asked, ask_status, wait_for
from notifier.client.service_api import AsyncServiceApi, ServiceApi, default_api
from notifier.domain.notification_status import NotificationStatus
from notifier.domain.statuses import Channel, Lane


@dataclass(frozen=True, slots=True)
class SentMessage:
    """The ids of a message that was sent."""

    #: Id of the notification. If the idempotency key had been accepted before, the earlier notification keeps its
    #: own id; `status` and `wait` find it.
    id: UUID
    #: The key with which sending again is safe: the one you gave, or else the id.
    idempotency_key: str
    channel: Channel
    lane: Lane

    @property
    def asked(self) -> Asked:
        """What to ask the service about. Raises `ValueError` if the handle was made without a valid id."""
        key = None if self.idempotency_key == str(self.id) else self.idempotency_key
        return Asked.by(self.id, key, self._content)

    @property
    def _content(self) -> str | None:
        return None


@dataclass(frozen=True)
class Handle(SentMessage):
    """The handle that `Client` returns. It holds only ids: after pickling it asks the API that the environment
    names, and takes whatever was accepted under its key for its message."""

    def __reduce__(self) -> tuple[type[Handle], tuple[Any, ...]]:
        # Without the content's hash: in a task's arguments it would let somebody guess a code in the message.
        return Handle, (self.id, self.idempotency_key, self.channel, self.lane)

    def asking(self, api: ServiceApi | None, content: str | None = None) -> Self:
        """This handle, bound to the API it asks and to the hash of its message's content."""
        self.__dict__.update(_api=api, _hash=content)
        return self

    @property
    def _content(self) -> str | None:
        found: str | None = self.__dict__.get("_hash")
        return found

    def status(self) -> NotificationStatus | None:
        """Return the current status. None: the message is not in the record. The intake may not have read it yet
        or may have rejected it, or its transaction has not been committed, or the relay has not published it.

        Raises:
            InvalidMessage: its id or idempotency key was accepted before with other content, so this message is
                rejected.
            ConfigurationError: the address or key of the HTTP API is missing or wrong; the text says what to set.
            ServiceUnavailable: the service does not answer now.
        """
        return self._service().run(ask_status(self.asked))

    def wait(self, timeout: float) -> NotificationStatus:
        """Wait until a provider has taken the message or the notification has ended in any other way, and return
        its status. Look at `is_successful`. `timeout` is in seconds; if the service is silent, the call may take
        up to the client's `timeout_seconds` longer.

        Raises:
            NotReady: neither happened in time; the error's `status` is the current one.
            InvalidMessage, ConfigurationError, ServiceUnavailable: as for `status`.
            TypeError, ValueError: `timeout` is not a number of seconds, or more than a year.
        """
        return self._service().run(wait_for(self.asked, timeout))

    def _service(self) -> ServiceApi:
        return self.__dict__.get("_api") or default_api


@dataclass(frozen=True, slots=True)
class AsyncHandle(SentMessage):
    """The handle that `AsyncClient` returns. `status` and `wait` are those of `Handle`, to be awaited."""

    _api: AsyncServiceApi = field(repr=False, compare=False)

    async def status(self) -> NotificationStatus | None:
        return await self._api.run(ask_status(self.asked))

    async def wait(self, timeout: float) -> NotificationStatus:
        return await self._api.run(wait_for(self.asked, timeout))
