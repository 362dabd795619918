"""Waits for the result of one message: `notifier send --wait`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import UUID

import typer

from notifier.cli.exit_codes import FAILED
from notifier.cli.output import hint, print_json, warn
from notifier.cli.timeline import print_story, story_as_json
from notifier.domain.errors import NotFound
from notifier.domain.statuses import READY_STATUSES, SUCCESSFUL_STATUSES

if TYPE_CHECKING:
    from notifier.client.handles import Handle
    from notifier.store.search import Audit, RejectedView, Story

#: Pause between two looks at the record. Seconds.
POLL_SECONDS = 0.1
#: How many of the newest notifications, or rejected messages, are searched for ours.
LOOKED_AT = 50


class OutcomeWaiter:
    """Waits for a message's result. Create it before the message is sent, so that older notifications are not
    taken for the result."""

    def __init__(self, audit: Audit, to: str, key: str | None) -> None:
        self._audit = audit
        self._to = to
        self._key = key
        first = self._first_with_key()
        self._duplicates_before = first.duplicates if first else 0

    def wait(self, handle: Handle, *, seconds: float, as_json: bool) -> None:
        """Print the story as soon as the message is sent or final, or in its state after `seconds`.

        Exits with 1 unless it is sent or delivered.
        """
        story, rejected = self._poll(handle.id, seconds)
        if rejected is not None:
            _print_rejected(rejected, as_json=as_json)
        elif story is None:
            _print_absent(handle, seconds, as_json=as_json)
        else:
            _print_story(story, handle, seconds, as_json=as_json)
            if story.notification.status in SUCCESSFUL_STATUSES:
                return
        raise typer.Exit(FAILED)

    def _poll(self, notification_id: UUID, seconds: float) -> tuple[Story | None, RejectedView | None]:
        gives_up_at = time.monotonic() + seconds
        while True:
            is_last = time.monotonic() >= gives_up_at
            story = self._story(notification_id, is_last=is_last)
            if story is not None and story.notification.status in READY_STATUSES:
                return story, None
            rejected = None if story else self._rejected(notification_id)
            if rejected is not None or is_last:
                return story, rejected
            time.sleep(POLL_SECONDS)

    def _story(self, notification_id: UUID, *, is_last: bool) -> Story | None:
        try:
            return self._audit.story(notification_id)
        except NotFound:
            return self._repeated(is_last=is_last)

    def _rejected(self, notification_id: UUID) -> RejectedView | None:
        ours = str(notification_id).encode()
        return next((found for found in self._audit.rejected(limit=LOOKED_AT) if ours in found.body), None)

    def _repeated(self, *, is_last: bool) -> Story | None:
        """The notification that ours repeats, after the intake has recorded the repetition. If the record lists no
        further repetitions, only at the last look, because until then ours may be rejected."""
        from notifier.store.ledger_sql import LISTED_DUPLICATES

        first = self._first_with_key()
        is_listed = first is not None and first.duplicates > self._duplicates_before
        is_unlisted = is_last and self._duplicates_before >= LISTED_DUPLICATES
        return first if is_listed or is_unlisted else None

    def _first_with_key(self) -> Story | None:
        from notifier.store.search import Filter

        if self._key is None:
            return None
        for found in self._audit.search(Filter(recipient=self._to), limit=LOOKED_AT):
            if found.idempotency_key == self._key:
                return self._audit.story(found.id)
        return None


def _print_story(story: Story, handle: Handle, seconds: float, *, as_json: bool) -> None:
    if as_json:
        print_json(story_as_json(story))
        return
    if story.notification.id != handle.id:
        hint("this key was used before, and nothing was sent again; the first message with it:")
    print_story(story)
    if story.notification.status not in READY_STATUSES:
        hint(f"not sent after {seconds:g} s. next: notifier show {handle.id}")


def _print_rejected(rejected: RejectedView, *, as_json: bool) -> None:
    if as_json:
        print_json({"status": "rejected", "rejected_id": rejected.id, "faults": rejected.faults})
        return
    warn("the service rejected it:")
    for fault in rejected.faults:
        warn(f"  {fault['field'] or 'body'}: {fault['problem']}. {fault['fix']}.")
    hint(f"next: notifier rejected show {rejected.id}")


def _print_absent(handle: Handle, seconds: float, *, as_json: bool) -> None:
    if as_json:
        print_json({"status": None, "id": handle.id, "idempotency_key": handle.idempotency_key})
        return
    warn(f"not in the record after {seconds:g} s: {handle.id}")
    hint("Is an intake running? next: notifier queues")
