"""Waiting for what becomes of one message: `notifier send --wait`."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import typer

from notifier.cli.failing import FAILED
from notifier.cli.output import hint, print_json, warn
from notifier.cli.story import print_story, story_as_json
from notifier.errors import NotFound
from notifier.status import FINAL_STATUSES, Status

if TYPE_CHECKING:
    from notifier.client import Handle
    from notifier.store.audit import Audit, RejectedView, Story

#: Between two looks at the record. Seconds.
POLL_SECONDS = 0.1
#: Among so many of the newest notifications, or rejected messages, ours is looked for.
LOOKED_AT = 50
#: The database's clock may be behind ours by this.
CLOCK_SKEW = timedelta(seconds=5)

_ENDED = FINAL_STATUSES | {Status.SENT}
_SUCCESS = frozenset({Status.SENT, Status.DELIVERED})


def wait_for(audit: Audit, handle: Handle, to: str, *, seconds: float, as_json: bool) -> None:
    """Print the story of the message as soon as it is sent or final, or what it is after `seconds`.

    Exits 1 unless it is sent or delivered.
    """
    story, rejected = _poll(audit, handle, to, seconds)
    if rejected is not None:
        _tell_rejected(rejected, as_json=as_json)
    elif story is None:
        _tell_absent(handle, seconds, as_json=as_json)
    else:
        if as_json:
            print_json(story_as_json(story))
        else:
            if story.notification.id != handle.id:
                hint("this key was used before, and nothing was sent again; the first message with it:")
            print_story(story)
        if story.notification.status in _SUCCESS:
            return
        if not as_json and story.notification.status not in _ENDED:
            hint(f"not sent after {seconds:g} s. next: notifier show {handle.id}")
    raise typer.Exit(FAILED)


def _poll(audit: Audit, handle: Handle, to: str, seconds: float) -> tuple[Story | None, RejectedView | None]:
    gives_up_at = time.monotonic() + seconds
    while True:
        story = _story(audit, handle.id) or _first_with_key(audit, handle, to)
        if story is not None and story.notification.status in _ENDED:
            return story, None
        rejected = None if story else _rejected(audit, handle.id)
        if rejected is not None or time.monotonic() >= gives_up_at:
            return story, rejected
        time.sleep(POLL_SECONDS)


def _story(audit: Audit, notification_id: UUID) -> Story | None:
    try:
        return audit.story(notification_id)
    except NotFound:
        return None


def _first_with_key(audit: Audit, handle: Handle, to: str) -> Story | None:
    """The notification that ours is a repetition of, once the intake has noted that."""
    from notifier.message import time_of_id
    from notifier.store.audit import Filter

    if handle.idempotency_key == str(handle.id):
        return None
    sent_at = time_of_id(handle.id) - CLOCK_SKEW
    for found in audit.search(Filter(recipient=to), limit=LOOKED_AT):
        if found.idempotency_key == handle.idempotency_key:
            story = audit.story(found.id)
            if any(event.kind == "duplicate" and event.recorded_at > sent_at for event in story.events):
                return story
    return None


def _rejected(audit: Audit, notification_id: UUID) -> RejectedView | None:
    ours = str(notification_id).encode()
    return next((found for found in audit.rejected(limit=LOOKED_AT) if ours in found.body), None)


def _tell_rejected(rejected: RejectedView, *, as_json: bool) -> None:
    if as_json:
        print_json({"status": "rejected", "rejected_id": rejected.id, "faults": rejected.faults})
        return
    warn("the service rejected it:")
    for fault in rejected.faults:
        warn(f"  {fault['field'] or 'body'}: {fault['problem']}. {fault['fix']}.")
    hint(f"next: notifier rejected show {rejected.id}")


def _tell_absent(handle: Handle, seconds: float, *, as_json: bool) -> None:
    if as_json:
        print_json({"status": None, "id": handle.id, "idempotency_key": handle.idempotency_key})
        return
    warn(f"not in the record after {seconds:g} s: {handle.id}")
    hint("Is an intake running? next: notifier queues")
