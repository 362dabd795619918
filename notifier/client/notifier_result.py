"""`NotifierResult`, for people used to Celery's `AsyncResult`: the same names, answered from the service's record.

    from notifier import NotifierResult

    result = NotifierResult(handle.id)
    if result.ready():
        print(result.state, result.get().sent_at)

| `state` | statuses |
|---|---|
| `PENDING` | none: not in the record; `scheduled`, `queued` |
| `STARTED` | `sending`, `unknown` |
| `RETRY` | `retrying` |
| `SUCCESS` | `sent`, `delivered` |
| `FAILURE` | `failed`, `expired`, `undelivered`, `suppressed` |
| `REVOKED` | `cancelled` |
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from uuid import UUID

from notifier.client.conversations import Asked, ask_status, wait_for
from notifier.client.handles import Handle
from notifier.client.service_api import ServiceApi, default_api
from notifier.domain.errors import NotificationFailed
from notifier.domain.notification_status import NotificationStatus
from notifier.domain.statuses import Status

STATES: Mapping[Status | None, str] = MappingProxyType(
    {
        None: "PENDING",
        Status.SCHEDULED: "PENDING",
        Status.QUEUED: "PENDING",
        Status.SENDING: "STARTED",
        Status.UNKNOWN: "STARTED",
        Status.RETRYING: "RETRY",
        Status.SENT: "SUCCESS",
        Status.DELIVERED: "SUCCESS",
        Status.FAILED: "FAILURE",
        Status.EXPIRED: "FAILURE",
        Status.UNDELIVERED: "FAILURE",
        Status.SUPPRESSED: "FAILURE",
        Status.CANCELLED: "REVOKED",
    }
)


class NotifierResult:
    """The state of one notification. Each access asks the service; nothing is cached.

    `notification_id` may be a handle that a client returned. It asks the API at NOTIFIER_API_URL with
    NOTIFIER_API_KEY, or the service that `notifier up` runs. `Client.result` makes one that asks the client's API.

    Every access raises `ConfigurationError` if there is no address or key, `ServiceUnavailable` if the service
    does not answer, and `InvalidMessage` if the handle's idempotency key was accepted before with other content.
    """

    def __init__(self, notification_id: UUID | str | Handle, api: ServiceApi | None = None) -> None:
        self._asked = notification_id.asked if isinstance(notification_id, Handle) else Asked.by(notification_id)
        self._api = api or default_api

    @property
    def id(self) -> str:
        return str(self._asked.id)

    @property
    def info(self) -> NotificationStatus | None:
        """The notification's status; None: it is not in the record."""
        return self._api.run(ask_status(self._asked))

    @property
    def task_id(self) -> str:
        """The notification's id, under `AsyncResult`'s name."""
        return self.id

    @property
    def result(self) -> NotificationStatus | None:
        """The same as `info`, under `AsyncResult`'s name. If the notification failed, this is still its status,
        never an exception."""
        return self.info

    @property
    def state(self) -> str:
        info = self.info
        return STATES[info.status if info else None]

    @property
    def status(self) -> str:
        """The same as `state`, under `AsyncResult`'s name. `info.status` is the record's word."""
        return self.state

    def ready(self) -> bool:
        """Whether a provider took the message, or the notification ended in any other way."""
        info = self.info
        return info is not None and info.is_ready

    def successful(self) -> bool:
        """Whether a provider took the message. False while it is on its way."""
        info = self.info
        return info is not None and info.is_successful

    def failed(self) -> bool:
        """Whether the notification ended without being sent, or the message did not arrive."""
        return self.state == "FAILURE"

    def get(self, timeout: float | None = None, propagate: bool = True) -> NotificationStatus:
        """Wait until the notification is ready, and return its status. `timeout` is in seconds; None: wait for
        ever.

        Raises:
            NotificationFailed: it was not sent, or did not arrive. Not raised if `propagate` is False.
            NotReady: it is not ready in time.
        """
        found = self._api.run(wait_for(self._asked, timeout))
        if propagate and not found.is_successful:
            raise NotificationFailed(found)
        return found

    def wait(self, timeout: float | None = None, propagate: bool = True) -> NotificationStatus:
        """The same as `get`, under `AsyncResult`'s name."""
        return self.get(timeout, propagate)

    def __repr__(self) -> str:
        return f"NotifierResult({self.id})"
