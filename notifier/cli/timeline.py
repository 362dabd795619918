"""The story of one notification as a timeline: events and attempts in the order in which they happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

from notifier.cli.output import clean, one_line, print_line, print_pairs, print_parts, status_style, utc
from notifier.domain.labels import EVENTS, OUTCOMES, PROOFS, REDACTED, reason_in_words, status_in_words
from notifier.domain.statuses import MessageProof

if TYPE_CHECKING:
    from notifier.store.attachments import AttachmentView
    from notifier.store.search import AttemptView, EventView, Story


@dataclass(frozen=True, slots=True)
class Step:
    at: datetime
    text: str
    #: The status from here on, for its colour; "" if it did not change.
    status: str = ""
    #: Among steps of one instant: a claim, then its call, then the answer, then what it means.
    rank: int = 0


def print_story(story: Story) -> None:
    notification = story.notification
    words = clean(status_in_words(notification.status))
    print_parts((str(notification.id), "bold"), ("  ", ""), (words, status_style(notification.status)))
    print_pairs(_facts(story))
    print_line()
    steps = timeline(story)
    origin = steps[0].at if steps else notification.accepted_at
    offsets = [f"+{(step.at - origin).total_seconds():.3f} s" for step in steps]
    width = max((len(offset) for offset in offsets), default=0)
    for step, offset in zip(steps, offsets, strict=True):
        when = f"{offset:>{width}}  {utc(step.at, milliseconds=True)}  "
        print_parts((when, "dim"), (one_line(step.text), status_style(step.status) if step.status else ""))


def story_as_json(story: Story) -> dict[str, object]:
    notification = {field.name: getattr(story.notification, field.name) for field in fields(story.notification)}
    return {**notification, "attempts": story.attempts, "events": story.events, "attachments": story.attachments}


def timeline(story: Story) -> list[Step]:
    """Events and attempts together, oldest first."""
    attempts = {attempt.number: attempt for attempt in story.attempts}
    steps = [step for event in story.events for step in _event_steps(event, attempts)]
    steps += [step for attempt in story.attempts for step in _attempt_steps(attempt)]
    # Stable: events of one instant stay in the order of recording.
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
        text += f" (the provider's time: {utc(event.occurred_at)})"
    # Events of one instant keep the order in which they were recorded; before an attempt come these two only.
    rank = 0 if event.kind == "accepted" or event.status == "sending" else 3
    label = event.status if event.kind in ("accepted", "status", "provider") else ""
    yield Step(event.recorded_at, text, label or "", rank)


def _attempt_steps(attempt: AttemptView) -> Iterator[Step]:
    name = f"attempt {attempt.number}: "
    if attempt.finished_at is None:
        yield Step(attempt.started_at, f"{name}calling {attempt.provider}; no answer is recorded", rank=1)
        return
    yield Step(attempt.started_at, f"{name}calling {attempt.provider}", rank=1)
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


def _facts(story: Story) -> Iterable[tuple[str, str]]:
    n = story.notification
    version = f"{n.template} (version {n.template_version}{', ' + n.locale if n.locale else ''})"
    yield "test", "sent with a test key: no provider is called" if n.is_test else ""
    yield "reason", reason_in_words(n.reason)
    # What a provider says when it takes one is in the timeline.
    yield "detail", one_line(n.detail or "") if n.reason else ""
    yield "to", one_line(n.recipient or REDACTED)
    yield "template", one_line(version)
    yield "channel", f"{n.channel}, lane {n.lane}"
    yield "producer", one_line(f"{n.producer}, {PROOFS[n.proof]}" if n.proof in PROOFS else n.producer)
    yield "reference", one_line(n.reference or "")
    yield "key", one_line(n.idempotency_key or "")
    yield "sender", one_line(n.sender or "")
    yield "metadata", one_line(", ".join(f"{name}={value}" for name, value in n.metadata.items()))
    yield "provider", one_line(" ".join(filter(None, (n.provider, n.provider_message_id))))
    yield "trace", one_line(n.trace_id or "")
    yield "attempts", str(n.attempt_count)
    yield "attachments", one_line(", ".join(map(_file_in_words, story.attachments)))
    yield "not before", utc(n.send_at)
    yield "expires", utc(n.expires_at)
    yield "next due", utc(n.due_at)
    if story.duplicates:
        yield "duplicates", str(story.duplicates)


def _file_in_words(file: AttachmentView) -> str:
    if file.name is None:
        return f"{file.id} (deleted)"
    return f"{file.name} ({file.content_type}, {file.size} bytes)"
