"""Rejected messages and dead letters: publish them again, or delete them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol
from uuid import UUID

from notifier.broker.amqp_transport import RAW_PROPERTIES
from notifier.broker.dead_letters import DeadLetter, Handle, Raw
from notifier.broker.topology import notify_queue_name, pairs
from notifier.domain.errors import WrongSelection
from notifier.operations.results import ActionResult, Progress, Skipped, result
from notifier.store.operator_actions import ActionCounts, Operating
from notifier.store.rejected import KeptRejection, RejectedSelection, Rejections


class DeadQueue(Protocol):
    """Where the broker keeps what it gave up on. `broker.dead_letters.RawPublisher` is one."""

    def each_dead_letter(self, handle: Handle, *, limit: int | None = None) -> None:
        """Show them to `handle`, which takes those that it answers True to."""

    def publish(self, raw: Raw) -> None:
        """Put a message into its queue."""


class Replays:
    """Actions on what never became a notification: rejected messages and dead letters. Thread-safe.

    Every method raises `ServiceUnavailable` when the database cannot be used now; the pages until then are done.
    """

    def __init__(self, operating: Operating, rejections: Rejections) -> None:
        self._operating = operating
        self._rejections = rejections

    def replay_rejected(
        self,
        selection: RejectedSelection,
        publish: Callable[[Raw], None],
        *,
        operator: str,
        reason: str | None = None,
        again: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ActionResult:
        """Publish rejected messages again to the queues they came by, byte for byte.

        One that was replayed before is left alone, unless `again`. After a crash, or by two operators at once, one
        may be published twice, which does no harm: it is the same message, with the same key.

        Raises:
            WrongSelection: it selects nothing.
        """
        _check_rejected(selection)
        if dry_run:
            return self._preview_replay(selection, again=again)
        begun = self._operating.begin(operator, "replay_rejected", selection.as_dict(), reason)
        if not selection.ids:
            # What is rejected again while we replay is for the next run, or there would be no end.
            until = begun.at if selection.until is None else min(begun.at, selection.until)
            selection = replace(selection, until=until)
        run = _Replay(self._rejections, begun.id, publish, again=again)
        last: UUID | None = None
        while page := self._rejections.page(selection, after=last, again=again):
            run.work_off(page)
            last = page[-1].id
            if progress:
                progress(run.tally)
        run.miss(selection.ids)
        self._operating.note(begun.id, run.tally, is_finished=True)
        return result(begun.id, run.tally, run.skipped)

    def purge_rejected(
        self,
        selection: RejectedSelection,
        *,
        operator: str,
        reason: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ActionResult:
        """Delete rejected messages for good.

        Raises:
            WrongSelection: it selects nothing.
        """
        _check_rejected(selection)
        if dry_run:
            codes = self._rejections.count(selection)
            total = sum(found.count for found in codes)
            return ActionResult(None, total, total, 0, codes=tuple(codes))
        begun = self._operating.begin(operator, "purge_rejected", selection.as_dict(), reason)
        tally, last = self._rejections.purge_page(selection, begun.id, after=None, tally=ActionCounts())
        while last is not None:
            if progress:
                progress(tally)
            tally, last = self._rejections.purge_page(selection, begun.id, after=last, tally=tally)
        missing = max(0, len(set(selection.ids)) - tally.changed)
        tally += ActionCounts(missing, 0, 0, missing)
        self._operating.note(begun.id, tally, is_finished=True)
        return result(begun.id, tally, ())

    def replay_dead(
        self, ids: Sequence[str] | None, queue: DeadQueue, *, operator: str, reason: str | None = None
    ) -> ActionResult:
        """Publish dead letters again to the queues they died in, and take them out of the dead queue.

        None for `ids` is all of them. After a crash the last one may be published twice: the same message, with
        the same key.

        Raises:
            NotFound: the broker has no dead queue.
        """

        def replay(letter: DeadLetter) -> str:
            if letter.queue not in _REPLAYABLE_QUEUES:
                return f"it died in {letter.queue or 'no queue that is known'}, which is no queue of producers"
            queue.publish(letter.raw)
            return ""

        return self._work_off_dead(ids, queue, replay, "replay_dead", operator, reason)

    def purge_dead(
        self, ids: Sequence[str] | None, queue: DeadQueue, *, operator: str, reason: str | None = None
    ) -> ActionResult:
        """Delete dead letters for good. None for `ids` is all of them.

        Raises:
            NotFound: the broker has no dead queue.
        """
        return self._work_off_dead(ids, queue, lambda _: "", "purge_dead", operator, reason)

    def _preview_replay(self, selection: RejectedSelection, *, again: bool) -> ActionResult:
        run = _Replay(self._rejections, None, lambda _: None, again=again)
        last: UUID | None = None
        while page := self._rejections.page(selection, after=last, again=again):
            run.work_off(page)
            last = page[-1].id
        run.miss(selection.ids)
        return ActionResult(
            record_id=None,
            matched=run.tally.matched,
            changed=run.tally.changed,
            expired=0,
            skipped=tuple(run.skipped),
            codes=tuple(self._rejections.count(selection, again=again)),
        )

    def _work_off_dead(
        self,
        ids: Sequence[str] | None,
        queue: DeadQueue,
        act: Callable[[DeadLetter], str],
        action: str,
        operator: str,
        reason: str | None,
    ) -> ActionResult:
        """`act` does it, or says why it may not be done."""
        selection: Mapping[str, Any] = {"all": True} if ids is None else {"ids": list(ids)}
        begun = self._operating.begin(operator, action, selection, reason)
        tally, found = ActionCounts(), set[str]()
        skipped: list[Skipped] = []

        def handle(letter: DeadLetter) -> bool:
            nonlocal tally
            if ids is not None and letter.id not in ids:
                return False
            found.add(letter.id)
            why = act(letter)
            if why:
                skipped.append(Skipped(letter.id, why))
            tally += ActionCounts(1, int(not why), 0, int(bool(why)))
            return not why

        try:
            queue.each_dead_letter(handle)
        except BaseException:
            self._operating.note(begun.id, tally, is_finished=False)
            raise
        missing = [value for value in dict.fromkeys(ids or ()) if value not in found]
        skipped += [Skipped(value, "there is no such dead letter") for value in missing]
        tally += ActionCounts(len(missing), 0, 0, len(missing))
        self._operating.note(begun.id, tally, is_finished=True)
        return result(begun.id, tally, skipped)


class _Replay:
    """One run over rejected messages; without a record it only looks."""

    def __init__(
        self, rejections: Rejections, record: UUID | None, publish: Callable[[Raw], None], *, again: bool
    ) -> None:
        self._rejections = rejections
        self._record = record
        self._publish = publish
        self._again = again
        self._seen: set[UUID] = set()
        self.tally = ActionCounts()
        self.skipped: list[Skipped] = []

    def work_off(self, page: Sequence[KeptRejection]) -> None:
        """Publish what may be published. What was, is marked, also if the next one fails."""
        published: list[UUID] = []
        try:
            for kept in page:
                self._seen.add(kept.id)
                why = _why_not_replayed(kept, again=self._again)
                if why:
                    self.skipped.append(Skipped(str(kept.id), why))
                else:
                    self._publish(_raw(kept))
                    published.append(kept.id)
                self.tally += ActionCounts(1, int(not why), 0, int(bool(why)))
        finally:
            if self._record is not None:
                self._rejections.mark_replayed(published, self._record, self.tally)

    def miss(self, ids: Sequence[UUID]) -> None:
        """Count those of `ids` that were not there."""
        missing = sorted(set(ids) - self._seen)
        self.skipped += [Skipped(str(value), "there is no such rejected message") for value in missing]
        self.tally += ActionCounts(len(missing), 0, 0, len(missing))


_REPLAYABLE_QUEUES = frozenset(notify_queue_name(*pair) for pair in pairs())


def _check_rejected(selection: RejectedSelection) -> None:
    if not selection.ids and not selection.as_dict()["filter"]:
        raise WrongSelection("nothing is selected: give ids or conditions")


def _raw(kept: KeptRejection) -> Raw:
    headers = dict(kept.headers)
    # Those could not be read: its body is published again alone, and judged by itself.
    headers.pop(RAW_PROPERTIES, None)
    kind, encoding = headers.pop("content_type", None), headers.pop("content_encoding", None)
    return Raw(
        queue=kept.queue,
        body=kept.body,
        headers=headers,
        content_type=kind if isinstance(kind, str) else None,
        content_encoding=encoding if isinstance(encoding, str) else None,
        broker_user=kept.broker_user,
    )


def _why_not_replayed(kept: KeptRejection, *, again: bool) -> str:
    if kept.problem is not None:
        return kept.problem
    if kept.body_size > len(kept.body):
        size = f"only {len(kept.body)} of its {kept.body_size} bytes were kept"
        return f"{size}: it must come from its producer again"
    if _lacks_common_fields(kept):
        return "it is an entry of a batch, kept without the fields that its batch gave it: publish the batch again"
    if kept.queue not in _REPLAYABLE_QUEUES:
        return f"it came by {kept.queue}, which is no queue of producers"
    if kept.replayed_at is not None and not again:
        return f"it was replayed at {kept.replayed_at:%Y-%m-%d %H:%M:%S} UTC"
    return ""


def _lacks_common_fields(kept: KeptRejection) -> bool:
    """An entry that is no message of its own: the producer and the template may have stood in its batch only."""
    if kept.entry is None:
        return False
    try:
        value = json.loads(kept.body)
    except (ValueError, RecursionError):
        return True
    return not isinstance(value, dict) or not {"producer", "template"} <= value.keys()
