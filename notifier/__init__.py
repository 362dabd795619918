"""notifier: publish a message, it answers for the rest.

What a producer needs; importing it loads no worker package. Names are loaded when they are first used, so that
`notifier --help` and programs that only now and then publish start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from notifier.client import Client, Handle, RecordingClient
    from notifier.errors import (
        ConfigurationError,
        Fault,
        InvalidMessage,
        NotifierError,
        PublishFailed,
        PublishRefused,
    )
    from notifier.message import Message, new_id
    from notifier.status import Channel, Lane

_HOMES = {
    "Channel": "status",
    "Client": "client",
    "ConfigurationError": "errors",
    "Fault": "errors",
    "Handle": "client",
    "InvalidMessage": "errors",
    "Lane": "status",
    "Message": "message",
    "NotifierError": "errors",
    "PublishFailed": "errors",
    "PublishRefused": "errors",
    "RecordingClient": "client",
    "new_id": "message",
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
