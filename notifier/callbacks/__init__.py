"""Status callbacks: producers are told, signed, what became of their messages.

`rules` says at intake who is told of what; a trigger of the database makes the rows; `running` takes what the
sweep gives out, calls the endpoints and records what came of it. See docs/explanation/callbacks.md.
"""

from __future__ import annotations

from notifier.callbacks.http import CallbackCaller
from notifier.callbacks.name_servers import NameServers
from notifier.callbacks.policy import CallbackPolicy
from notifier.callbacks.sender import CallbackSender

__all__ = ["CallbackCaller", "CallbackPolicy", "CallbackSender", "NameServers"]
