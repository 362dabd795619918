"""What a producer keeps of a message that it sent."""

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
    """The ids to ask about it later."""

    #: Id of the notification. If the idempotency key was accepted before, that notification keeps its own id;
    #: `status` and `wait` find it.
    id: UUID
    #: The key under which sending again is safe: the one given, or the id.
    idempotency_key: str
    channel: Channel
    lane: Lane

    @property
    def asked(self) -> Asked:
        """What the service is asked for. Raises ValueError: a handle was made with what is no id."""
        key = None if self.idempotency_key == str(self.id) else self.idempotency_key
        return Asked.by(self.id, key, self._content)

    @property
    def _content(self) -> str | None:
        return None


@dataclass(frozen=True)
class Handle(SentMessage):
    """What `Client` returns. A value of its ids alone: a pickled one asks whom the environment names, and takes
    whatever was accepted under its key for its message."""

    def __reduce__(self) -> tuple[type[Handle], tuple[Any, ...]]:
        # Without the hash: in the arguments of a task it would give a code away.
        return Handle, (self.id, self.idempotency_key, self.channel, self.lane)

    def asking(self, api: ServiceApi | None, content: str | None = None) -> Self:
        """This handle, which asks `api` for a message of this content."""
        self.__dict__.update(_api=api, _hash=content)
        return self

    @property
    def _content(self) -> str | None:
        found: str | None = self.__dict__.get("_hash")
        return found

    def status(self) -> NotificationStatus | None:
        """Where it stands now. None: it is not in the record, because the intake has not read it yet, or rejected
        it, or because its transaction or relay is not that far.

        Raises:
            InvalidMessage: its id or idempotency key was accepted before, for another content: it is rejected.
            ConfigurationError: the address or key of the HTTP API is missing or wrong; the text says what to set.
            ServiceUnavailable: the service does not answer now.
        """
        return self._service().run(ask_status(self.asked))

    def wait(self, timeout: float) -> NotificationStatus:
        """Where it stands as soon as a provider took it, or it ended otherwise, whatever way; look at
        `is_successful`. `timeout` in seconds; a silent service may take the client's `timeout_seconds` more.

        Raises:
            NotReady: neither happened in time; `status` is where it stands.
            InvalidMessage, ConfigurationError, ServiceUnavailable: as `status`.
            TypeError, ValueError: `timeout` is no number of seconds, or more than a year.
        """
        return self._service().run(wait_for(self.asked, timeout))

    def _service(self) -> ServiceApi:
        return self.__dict__.get("_api") or default_api


@dataclass(frozen=True, slots=True)
class AsyncHandle(SentMessage):
    """What `AsyncClient` returns; `status` and `wait` as those of `Handle`, to be awaited."""

    _api: AsyncServiceApi = field(repr=False, compare=False)

    async def status(self) -> NotificationStatus | None:
        return await self._api.run(ask_status(self.asked))

    async def wait(self, timeout: float) -> NotificationStatus:
        return await self._api.run(wait_for(self.asked, timeout))
