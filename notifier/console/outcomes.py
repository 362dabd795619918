"""Describes in sentences what an action did, or would do."""

from __future__ import annotations

from collections import Counter
from typing import Any

from notifier.console.forms import ActForm
from notifier.operations import ActionResult

#: Maximum number of reasons shown for what was left alone.
_WHYS = 5


def said(done: ActionResult, verb: str, noun: str, form: ActForm) -> dict[str, Any]:
    """What a page shows of the action: lines, the operator record, and the form that was sent."""
    return {"lines": in_words(done, verb, noun), "record": done.record_id, "form": form}


def said_of_one(done: ActionResult, verb: str) -> str:
    """The result for the one notification that a page is about."""
    if done.skipped:
        return f"Nothing was done: {done.skipped[0].why}."
    if done.expired:
        return "Nothing was done: it was to be sent by a time that has passed, so it is never sent."
    if not done.changed:
        return "Nothing was done: it changed meanwhile. Load the page again."
    return f"It would be {verb}." if done.record_id is None else f"It is {verb}. Operator record {done.record_id}."


def in_words(done: ActionResult, verb: str, noun: str) -> list[str]:
    """One line for each fact: `3 messages would be replayed.`, then what is left alone, and why."""
    is_dry = done.record_id is None
    if not done.matched:
        return [f"Nothing {'would be' if is_dry else 'was'} done: there is no such {noun} any more."]
    does = "would be" if is_dry else ("is" if done.changed == 1 else "are")
    lines = [f"{_count(done.changed, noun)} {does} {verb}."]
    if done.entries:
        accepted, rejected = done.entries.accepted, done.entries.rejected
        lines.append(
            f"Of its entries, {accepted} {'was' if accepted == 1 else 'were'} accepted and {rejected} rejected. "
            "The rejected ones are among the rejected messages with the reason."
        )
    if done.expired:
        lines.append(f"{_count(done.expired, noun)} left alone: they were to be sent by a time that has passed.")
    for why, count in Counter(one.why for one in done.skipped).most_common(_WHYS):
        lines.append(f"{_count(count, noun)} left alone: {why}.")
    return lines


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
