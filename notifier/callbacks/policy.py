"""Who is told of what: looked at for each message at intake, where it costs those without it a look-up."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from notifier.callbacks.url_guard import url_problem
from notifier.config.callbacks import CallbackTable
from notifier.domain.errors import Fault
from notifier.domain.message import Message
from notifier.domain.statuses import Status


class CallbackPolicy:
    """The callback rules of notifier.toml."""

    def __init__(self, tables: Mapping[str, CallbackTable], allowed_hosts: Collection[str] = ()) -> None:
        self._tables = tables
        self._allowed = allowed_hosts
        self._told = {producer: table.told for producer, table in tables.items()}

    def faults(self, message: Message) -> list[Fault]:
        """Faults of the message's own endpoint."""
        if message.callback_url is None:
            return []
        found = []
        if message.producer not in self._tables:
            fix = f"Add secrets to [callbacks.{message.producer}] in notifier.toml, or leave callback_url out"
            problem = "cannot be signed: the producer has no secret configured"
            found.append(Fault("callback_url", "no_callback_secret", problem, fix))
        problem_of_url = url_problem(message.callback_url, self._allowed)
        if problem_of_url is not None:
            fix = (
                "Use https on port 443 or 8443 of a public host, or have it added to NOTIFIER_CALLBACK_ALLOW_HOSTS"
            )
            found.append(Fault("callback_url", "bad_callback_url", problem_of_url, fix))
        return found

    def told(self, message: Message) -> tuple[Status, ...] | None:
        """The statuses of which its producer is notified; None: no callbacks."""
        table = self._tables.get(message.producer)
        if table is None or (table.url is None and message.callback_url is None):
            return None
        return self._told[message.producer]
