"""notifier: publish a message, it answers for the rest.

What a producer needs; importing it loads no worker package.
"""

from notifier.client import Client, Handle, RecordingClient
from notifier.errors import (
    ConfigurationError,
    Fault,
    InvalidMessage,
    NotifierError,
    PublishFailed,
)
from notifier.message import Message, new_id
from notifier.status import Channel, Lane

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
    "RecordingClient",
    "new_id",
]
