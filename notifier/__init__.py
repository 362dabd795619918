"""notifier: publish a message, it answers for the rest.

What a producer needs; importing it loads no worker package. Names are loaded when they are first used, so that
`notifier --help` and programs that only now and then publish start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from notifier.client.client import Client, Handle, RecordingClient
    from notifier.domain.errors import (
        ConfigurationError,
        Fault,
        InvalidMessage,
        NotifierError,
        PublishFailed,
        PublishRefused,
    )
    from notifier.domain.message import Message, new_id
    from notifier.domain.statuses import Channel, Lane

_HOMES = {
    "Channel": "domain.statuses",
    "Client": "client.client",
    "ConfigurationError": "domain.errors",
    "Fault": "domain.errors",
    "Handle": "client.client",
    "InvalidMessage": "domain.errors",
    "Lane": "domain.statuses",
    "Message": "domain.message",
    "NotifierError": "domain.errors",
    "PublishFailed": "domain.errors",
    "PublishRefused": "domain.errors",
    "RecordingClient": "client.client",
    "new_id": "domain.message",
}

__all__ = [
    "Channel",
    "Client",
    "ConfigurationError",
    "Fault",
    "Handle",
    "InvalidMessage",
    "Lane",
    "Message",
    "NotifierError",
    "PublishFailed",
    "PublishRefused",
    "RecordingClient",
    "new_id",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'notifier' has no attribute {name!r}")
    return getattr(import_module(f"notifier.{home}"), name)
