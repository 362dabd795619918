"""notifier: publish a message, it answers for the rest.

What a producer needs; importing it loads no worker package. Names are loaded when they are first used, so that
`notifier --help` and programs that only now and then publish start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from notifier.client.async_client import AsyncClient
    from notifier.client.client import Client, RecordingClient
    from notifier.client.handles import AsyncHandle, Handle
    from notifier.client.notifier_result import NotifierResult
    from notifier.domain.errors import (
        ConfigurationError,
        Fault,
        InvalidMessage,
        NotificationFailed,
        NotifierError,
        NotReady,
        PublishFailed,
        PublishRefused,
        ServiceUnavailable,
    )
    from notifier.domain.message import Message, new_id
    from notifier.domain.notification_status import NotificationStatus
    from notifier.domain.statuses import Channel, Lane, Status

_HOMES = {
    "AsyncClient": "client.async_client",
    "AsyncHandle": "client.handles",
    "Channel": "domain.statuses",
    "Client": "client.client",
    "ConfigurationError": "domain.errors",
    "Fault": "domain.errors",
    "Handle": "client.handles",
    "InvalidMessage": "domain.errors",
    "Lane": "domain.statuses",
    "Message": "domain.message",
    "NotReady": "domain.errors",
    "NotificationFailed": "domain.errors",
    "NotificationStatus": "domain.notification_status",
    "NotifierError": "domain.errors",
    "NotifierResult": "client.notifier_result",
    "PublishFailed": "domain.errors",
    "PublishRefused": "domain.errors",
    "RecordingClient": "client.client",
    "ServiceUnavailable": "domain.errors",
    "Status": "domain.statuses",
    "new_id": "domain.message",
}

__all__ = [
    "AsyncClient",
    "AsyncHandle",
    "Channel",
    "Client",
    "ConfigurationError",
    "Fault",
    "Handle",
    "InvalidMessage",
    "Lane",
    "Message",
    "NotReady",
    "NotificationFailed",
    "NotificationStatus",
    "NotifierError",
    "NotifierResult",
    "PublishFailed",
    "PublishRefused",
    "RecordingClient",
    "ServiceUnavailable",
    "Status",
    "new_id",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'notifier' has no attribute {name!r}")
    return getattr(import_module(f"notifier.{home}"), name)
