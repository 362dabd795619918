"""Secrets end with their message: the statement that says it was sent, or was stopped for good, wipes them."""

from __future__ import annotations

#: Of `notifications AS n`: nobody can send it any more, its secrets were wiped, or it was redacted.
GONE = "(coalesce(cardinality(n.secret_names) = 0, false) OR (n.recipient IS NULL AND n.sealed IS NULL))"
#: In words.
GONE_WORDS = "held: its secrets were wiped when it counted as sent, so it cannot be sent again"


def wipe(condition: str) -> str:
    """Assignments of an UPDATE of `notifications AS n` that wipe its secrets where `condition` holds.

    Sealed ones are a column of their own, plain ones members of the context. `secret_names` is empty from then on:
    it had secrets, and it cannot be sent again. A message without any is only looked at.
    """
    has_some = f"n.secret_names IS NOT NULL AND {condition}"
    return f"""context = CASE WHEN {has_some} THEN n.context - n.secret_names ELSE n.context END,
    secrets = CASE WHEN {has_some} THEN NULL ELSE n.secrets END,
    secret_names = CASE WHEN {has_some} THEN '{{}}' ELSE n.secret_names END"""
