"""Builds the timeline of one notification: events and attempts in the order in which they happened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from notifier.domain.labels import EVENTS, OUTCOMES, reason_in_words, status_in_words
from notifier.domain.statuses import MessageProof

if TYPE_CHECKING:
    from notifier.store.search import AttemptView, EventView, Story


@dataclass(frozen=True, slots=True)
class Step:
    at: datetime
    text: str
    #: The status from here on, for its colour; "" if it did not change.
    status: str = ""
    #: Order of steps at the same instant: a claim, then its call, then the answer, then what follows from it.
    rank: int = 0


def timeline(story: Story) -> list[Step]:
    """Events and attempts together, oldest first."""
    attempts = {attempt.number: attempt for attempt in story.attempts}
    steps = [step for event in story.events for step in _event_steps(event, attempts)]
    steps += _all_attempts(story.attempts, story.accepted_version)
    # The sort is stable, so events of one instant stay in the order of recording.
    return sorted(steps, key=lambda step: (step.at, step.rank))


def _event_steps(event: EventView, attempts: dict[int, AttemptView]) -> Iterator[Step]:
    text = EVENTS.get(event.kind, "" if event.kind == "status" else event.kind.replace("_", " "))
    has_ended = event.attempt in attempts and attempts[event.attempt or 0].finished_at is not None
    told_by_attempt = has_ended and event.kind == "status"
    if event.status and event.kind in ("accepted", "status"):
        words = event.status if told_by_attempt else status_in_words(event.status)
        text = ", ".join(filter(None, (text, words)))
    if event.reason and event.status not in ("queued", "sending", "expired") and not told_by_attempt:
        text += f", {reason_in_words(event.reason)}"
    if event.detail and event.kind != "redispatched" and not told_by_attempt:
        text += f" — {event.detail}"
    if event.occurred_at:
        text += f" (the provider's time: {event.occurred_at.astimezone(UTC):%Y-%m-%d %H:%M:%S})"
    # Only these two events come before an attempt of the same instant.
    rank = 0 if event.kind == "accepted" or event.status == "sending" else 3
    label = event.status if event.kind in ("accepted", "status", "provider") else ""
    yield Step(event.recorded_at, text, label or "", rank)


def _all_attempts(attempts: Sequence[AttemptView], version: str | None) -> Iterator[Step]:
    """All attempts. The sender and the template's version are named only where they change; `version` is the one
    at acceptance."""
    sender: str | None = None
    for attempt in attempts:
        words = f"attempt {attempt.number}: calling {attempt.provider}"
        if attempt.sender_address and attempt.sender_address != sender:
            words += f" from {attempt.sender_address}"
        if attempt.template_version and attempt.template_version != version:
            words += f", with version {attempt.template_version} of the template"
        sender, version = attempt.sender_address, attempt.template_version
        yield from _attempt_steps(attempt, words)


def _attempt_steps(attempt: AttemptView, calling: str) -> Iterator[Step]:
    if attempt.finished_at is None:
        yield Step(attempt.started_at, f"{calling}; no answer is recorded", rank=1)
        return
    yield Step(attempt.started_at, calling, rank=1)
    name = f"attempt {attempt.number}: "
    took = (attempt.finished_at - attempt.started_at).total_seconds()
    text = f"{name}{attempt.provider} {OUTCOMES.get(attempt.outcome or '', attempt.outcome or '')}"
    if attempt.provider_message_id:
        text += f" as {attempt.provider_message_id}"
        if attempt.proof == MessageProof.LOOK_UP:
            text += " (found by its words, not proven)"
    text += f", after {took:.3f} s"
    if attempt.reason:
        text += f": {reason_in_words(attempt.reason)}"
    if attempt.subject:
        text += f", about the {attempt.subject}"
    said = " ".join(filter(None, (attempt.code, attempt.detail)))
    yield Step(attempt.finished_at, f"{text} — {said}" if said else text, rank=2)
