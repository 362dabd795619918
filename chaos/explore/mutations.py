"""Faults put back on purpose, to prove that the explorer finds them. In the explorer's own process only.

Most are one condition less in a statement on its way to the database, as it was before somebody thought of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chaos.explore.world import World
from notifier.store import ledger, ledger_rows, provider_messages, receipts
from notifier.store.values import Result, Rivals


@dataclass(frozen=True, slots=True)
class Mutation:
    """A fault, and where it shows."""

    name: str
    what: str
    scenario: str
    #: The promise that it breaks.
    promise: str
    apply: Callable[[World], None]


def _without(pattern: str, instead: str) -> Callable[[World], None]:
    wanted = re.compile(pattern, re.DOTALL)
    return lambda world: setattr(world.database, "mutation", lambda sql: wanted.sub(instead, sql))


def _messages_belong_to_nobody(_: World) -> None:
    """As before there were `provider_messages`: whoever finds a message has it."""

    def rivals(_self: object, unknown: object, *_: object, **__: object) -> Rivals:
        return Rivals(frozenset(), (), unknown.looked_at)  # type: ignore[attr-defined]

    def result_row(result: Result) -> dict[str, Any]:
        return ledger_rows.result_row(result) | {"id_space": None}

    ledger.result_row = result_row
    ledger.Ledger.rivals = rivals  # type: ignore[method-assign, assignment]
    for module in (ledger, provider_messages, receipts):
        module.claim_message = lambda *_: True  # type: ignore[attr-defined]


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "claim-twice",
        "a claim takes what another worker has in hand",
        "deliver-deliver",
        "nothing is sent twice unrecorded",
        _without(
            # Whose claim it is, is told by its status alone, or by a token as well.
            r"CASE WHEN n\.status = 'queued' THEN true END"
            r"|n\.status = 'sending' AND n\.claim_token = %\(token\)s(::\w+)?",
            "n.status IN ('queued', 'sending')",
        ),
    ),
    Mutation(
        "twins",
        "a look-up gives one provider message to two notifications",
        "sms-twins",
        "one message, one attempt",
        _messages_belong_to_nobody,
    ),
    Mutation(
        "status-backwards",
        "a report moves a notification whatever it has become",
        "cancel-report",
        "statuses go by the table",
        _without(r"n\.status = ANY\(%\(sources\)s(::\w+\[\])?\)", "true"),
    ),
)


def named(name: str) -> Mutation:
    """Raises KeyError."""
    return {mutation.name: mutation for mutation in MUTATIONS}[name]
