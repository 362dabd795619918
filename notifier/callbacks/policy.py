"""Decides, for each message at intake, who is notified of what; and when an endpoint is called again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from notifier.callbacks.url_guard import url_problem
from notifier.config.callbacks import CallbackTable
from notifier.domain.errors import Fault
from notifier.domain.message import Message
from notifier.domain.statuses import CallbackFailure, Status

#: The first and the longest pause. The pause doubles with each call. Seconds.
FIRST_SECONDS, MAX_SECONDS = 5.0, 3600.0
#: A callback that has failed for this long is parked. Seconds.
PARK_SECONDS = 86_400.0

_FOR_GOOD = (CallbackFailure.GONE, CallbackFailure.NOT_IN_RECORD, CallbackFailure.REDACTED)


class CallbackPolicy:
    """The callback rules of notifier.toml."""

    def __init__(self, tables: Mapping[str, CallbackTable], allowed_hosts: Collection[str] = ()) -> None:
        self._tables = tables
        self._allowed = allowed_hosts
        self._told = {producer: table.told for producer, table in tables.items()}

    def faults(self, message: Message) -> list[Fault]:
        """What is wrong with the message's own endpoint."""
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
        """The statuses of which the message's producer is notified; None: no callbacks."""
        table = self._tables.get(message.producer)
        if table is None or (table.url is None and message.callback_url is None):
            return None
        return self._told[message.producer]


def pause_after(
    failure: CallbackFailure, tries: int, age_seconds: float, retry_after_seconds: float | None, chance: float
) -> float | None:
    """Seconds until the next call after call number `tries`; None: the callback is parked. Half of the pause is
    fixed, and the other half is multiplied by `chance` (0 to 1). It is at least as long as the endpoint asked
    for."""
    if failure in _FOR_GOOD:
        return None
    longest = min(FIRST_SECONDS * 2.0 ** min(tries - 1, 30), MAX_SECONDS)
    pause = max(longest * (0.5 + chance / 2), retry_after_seconds or 0.0)
    return pause if age_seconds + pause <= PARK_SECONDS else None
