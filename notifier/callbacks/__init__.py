"""Status callbacks: signed calls that notify producers of what became of their messages.

`policy` decides at intake who is notified of what. A trigger of the database creates the rows. `sender` takes what
the sweep dispatches, calls the endpoints and records the results. See docs/explanation/callbacks.md.
"""

from __future__ import annotations

from notifier.callbacks.http import CallbackCaller
from notifier.callbacks.name_servers import NameServers
from notifier.callbacks.policy import CallbackPolicy
from notifier.callbacks.sender import CallbackSender

__all__ = ["CallbackCaller", "CallbackPolicy", "CallbackSender", "NameServers"]
