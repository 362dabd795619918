"""Prints the story of one notification on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from notifier.cli.output import clean, one_line, print_line, print_pairs, print_parts, status_style, utc
from notifier.domain.labels import PROOFS, REDACTED, due_in_words, reason_in_words, status_in_words

if TYPE_CHECKING:
    from notifier.store.attachments import AttachmentView
    from notifier.store.search import Story


def print_story(story: Story) -> None:
    from notifier.operations.timeline import timeline

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
    others = {field.name: getattr(story, field.name) for field in fields(story) if field.name != "notification"}
    return {**notification, **others}


def _facts(story: Story) -> Iterable[tuple[str, str]]:
    n = story.notification
    version = f"{n.template} (version {n.template_version}{', ' + n.locale if n.locale else ''})"
    yield "test", "sent with a test key: no provider is called" if n.is_test else ""
    yield "reason", reason_in_words(n.reason)
    # What a provider says when it accepts a message is in the timeline.
    yield "detail", one_line(n.detail or "") if n.reason else ""
    yield "to", one_line(n.recipient or REDACTED)
    yield "template", one_line(version)
    yield "channel", f"{n.channel}, lane {n.lane}"
    yield "producer", one_line(f"{n.producer}, {PROOFS[n.proof]}" if n.proof in PROOFS else n.producer)
    yield "sent by", one_line((n.sent_by or "").replace(":", " ", 1))
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
    yield "next due", due_in_words(n.status, utc(n.due_at))
    yield "duplicates", story.duplicates_in_words


def _file_in_words(file: AttachmentView) -> str:
    if file.name is None:
        return f"{file.id} (deleted)"
    return f"{file.name} ({file.content_type}, {file.size} bytes)"
