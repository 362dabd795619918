"""Faults that are put back on purpose, to prove that the explorer finds them. Only in the explorer's own process.

Most of them remove one condition from a statement on its way to the database, as it was before somebody thought of
it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chaos.explore.world import World
from notifier.store import ledger, ledger_rows, provider_messages, provider_reports
from notifier.store.records import DeliveryResult, Rivals


@dataclass(frozen=True, slots=True)
class Mutation:
    name: str
    what: str
    scenario: str
    #: The promise that the fault breaks.
    promise: str
    apply: Callable[[World], None]


def _without(*changes: tuple[str, str]) -> Callable[[World], None]:
    """In each statement, replace what matches a pattern."""
    wanted = [(re.compile(pattern, re.DOTALL), instead) for pattern, instead in changes]

    def change(sql: str) -> str:
        for pattern, instead in wanted:
            sql = pattern.sub(instead, sql)
        return sql

    return lambda world: setattr(world.database, "mutation", change)


def _messages_belong_to_nobody(_: World) -> None:
    """As it was before `provider_messages`: whoever finds a message owns it."""

    def rivals(_self: object, unknown: object, *_: object, **__: object) -> Rivals:
        return Rivals(frozenset(), (), unknown.looked_at)  # type: ignore[attr-defined]

    def result_row(result: DeliveryResult) -> dict[str, Any]:
        return ledger_rows.result_row(result) | {"id_space": None}

    ledger.result_row = result_row  # type: ignore[attr-defined]
    ledger.Ledger.rivals = rivals  # type: ignore[method-assign, assignment]
    for module in (ledger, provider_messages, provider_reports):
        module.assign_message = lambda *_: True  # type: ignore[attr-defined]


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "claim-twice",
        "a claim takes what another worker has in hand",
        "again-again",
        "nothing is sent twice unrecorded",
        _without((r"(n\.status = 'sending') AND n\.claim_token = %\(token\)s(::\w+)?", r"\1")),
    ),
    Mutation(
        "claim-lost",
        "a claim whose answer was lost does not find its own when it is repeated",
        "again-again",
        "no worker counts as dead that lives",
        _without((r"n\.status = 'sending' AND n\.claim_token = %\(token\)s(::\w+)?", "false")),
    ),
    Mutation(
        "start-lost",
        "an attempt whose beginning was not answered is neither found again nor closed",
        "deliver",
        "no attempt is left open",
        _without(
            (r"a\.provider = r\.provider THEN a\.outcome IS NULL", "a.provider = r.provider THEN false"),
            (r"(closed AS \(\s+UPDATE attempts .*?)a\.outcome IS NULL OR a\.outcome = 'unknown'", r"\1false"),
        ),
    ),
    Mutation(
        "start-twice",
        "what another worker has claimed and begun meanwhile is begun again",
        "deliver-deliver",
        "nothing is sent twice unrecorded",
        _without(
            (
                r"WHEN n\.status = 'queued' AND n\.claim = r\.claim - 1 THEN [^\n]* END",
                "ELSE n.status <> 'sent' END",
            ),
            (r"THEN n\.attempt_count ELSE r\.number END", "THEN n.attempt_count ELSE n.attempt_count + 1 END"),
            (r"n\.detail, n\.claim, r\.number", "n.detail, n.claim, n.attempt_count AS number"),
        ),
    ),
    Mutation(
        "start-of-others",
        "an attempt whose beginning was not answered is taken for one's own, though another worker began it",
        "deliver-unanswered",
        "nothing is sent twice unrecorded",
        _without((r"\(%\(token\)s(::\w+)? IS NULL OR n\.claim_token = %\(token\)s(::\w+)?\)", "true")),
    ),
    Mutation(
        "give-back-of-others",
        "what was not claimed after all is given back, though another worker has claimed it",
        "deliver-deliver",
        "what was taken is not called refused",
        _without((r"ELSE n\.claim_token = %\(token\)s(::\w+)? END", "ELSE true END")),
    ),
    Mutation(
        "unheard-counts",
        "a lease whose worker had not heard of its claim counts as its death",
        "deliver-unheard",
        "no worker counts as dead that lives",
        _without((r"crash_count = 0 OR coalesce\(confirmed_claim = claim, false\)", "true")),
    ),
    Mutation(
        "late-start",
        "a worker that lost its lease still starts its call",
        "sms-again-late",
        "nothing is sent twice unrecorded",
        _without(
            (r"n\.claim = r\.claim AND n\.status = 'sending' AND n\.due_at > now\(\)[^\n]*", "true"),
            (r"THEN n\.attempt_count = r\.number - 1 END", "THEN true END"),
            (r"SET attempt_count = r\.number", "SET attempt_count = n.attempt_count + 1"),
            (r"RETURNING n\.id, n\.claim, r\.number", "RETURNING n.id, n.claim, n.attempt_count AS number"),
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
        _without((r"n\.status = ANY\(%\(sources\)s(::\w+\[\])?\)", "true")),
    ),
)


def named(name: str) -> Mutation:
    """The mutation of this name. Raises KeyError."""
    return {mutation.name: mutation for mutation in MUTATIONS}[name]
