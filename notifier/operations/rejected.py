"""Rejected messages and dead letters: publish them again, or delete them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from notifier.domain.errors import Fault, InvalidMessage, NotFound, WrongSelection
from notifier.domain.message import Envelope, Message
from notifier.domain.validation import decode
from notifier.operations.results import ActionResult, Progress, Skipped, by_id, result, run_pages
from notifier.store.operator_actions import ActionCounts, Operating
from notifier.store.rejected import KeptRejection, RejectedSelection, Rejections

if TYPE_CHECKING:  # slow to import, and most commands need none of it
    from notifier.broker.dead_letters import DeadLetter, Handle, Raw
    from notifier.domain.statuses import Channel, Lane

    #: Why a message of this channel and lane would be rejected now; empty: it would not be.
    Check = Callable[[Raw, Channel, Lane], Sequence[Fault]]


class DeadQueue(Protocol):
    """Where the broker keeps what it gave up on. `broker.dead_letters.RawPublisher` is one."""

    def each_dead_letter(self, handle: Handle, *, limit: int | None = None) -> None:
        """Pass each to `handle`, and remove those for which it returns True."""

    def publish(self, raw: Raw) -> None:
        """Put a message into its queue."""


class Replays:
    """Thread-safe. Every method raises `ServiceUnavailable`; the pages until then are done."""

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
        seconds: float | None = None,
    ) -> ActionResult:
        """Publish rejected messages again to the queues they came by, byte for byte.

        One that was replayed before is left alone, unless `again`. After a crash, or by two operators at once, one
        may be published twice, which does no harm: it is the same message, with the same key. `seconds`: begin no
        page after these; the same call again goes on with those that are not marked as replayed.

        Raises:
            WrongSelection: it selects nothing.
        """
        _check_rejected(selection)
        if dry_run:
            return self._preview_replay(selection, again=again, seconds=seconds)
        begun = self._operating.begin(operator, "replay_rejected", selection.as_dict(), reason)
        if not selection.ids:
            # What is rejected again while we replay is for the next run, or there would be no end.
            until = begun.at if selection.until is None else min(begun.at, selection.until)
            selection = replace(selection, until=until)
        found = self._replay(selection, publish, begun.id, again=again, progress=progress, seconds=seconds)
        self._operating.note(begun.id, found.tally, is_finished=True)
        return result(begun.id, found.tally, found.skipped)

    def replay_edited(
        self,
        message: UUID,
        body: bytes,
        publish: Callable[[Raw], None],
        check: Check,
        *,
        operator: str,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> ActionResult:
        """Publish another body in place of that of a rejected message, which stays on record as it came.

        Of its headers, which are about other bytes, the trace alone goes along. After a crash it may be published
        and not marked; a second replay is then a duplicate, by its key.

        Raises:
            InvalidMessage: `check` still finds faults.
            NotFound: there is no such message.
            WrongSelection: it cannot be published, or was before.
        """
        found = self._rejections.page(RejectedSelection(ids=(message,)), after=None)
        if not found:
            raise NotFound(f"no rejected message has the id {message}")
        [kept] = found
        pair, why = _pair_of(kept.queue), _why_not_published(kept, again=False)
        if pair is None or why:
            raise WrongSelection(why)
        raw = _edited(kept, body)
        if faults := check(raw, *pair):
            raise InvalidMessage(faults)
        counts = ActionCounts(1, 1)
        if dry_run:
            return ActionResult(None, counts.matched, counts.changed, 0)
        selection = {"ids": [str(message)], "changed": _changed(kept.body, body)}
        begun = self._operating.begin(operator, "replay_edited", selection, reason)
        publish(raw)
        self._rejections.mark_replayed([message], begun.id, counts)
        self._operating.note(begun.id, counts, is_finished=True)
        return result(begun.id, counts, ())

    def purge_rejected(
        self,
        selection: RejectedSelection,
        *,
        operator: str,
        reason: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ActionResult:
        """Delete rejected messages for good. Raises `WrongSelection` if nothing is selected."""
        _check_rejected(selection)
        if dry_run:
            codes = self._rejections.count(selection)
            total = sum(found.count for found in codes)
            return ActionResult(None, total, total, 0, codes=tuple(codes))
        begun = self._operating.begin(operator, "purge_rejected", selection.as_dict(), reason)
        tally = run_pages(by_id(partial(self._rejections.purge_page, selection, begun.id)), progress)
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
            if _pair_of(letter.queue) is None:
                return f"it died in {letter.queue or 'no queue that is known'}, which is not a queue of producers"
            queue.publish(letter.raw)
            return ""

        return self._work_off_dead(ids, queue, replay, "replay_dead", operator, reason)

    def purge_dead(
        self, ids: Sequence[str] | None, queue: DeadQueue, *, operator: str, reason: str | None = None
    ) -> ActionResult:
        """Delete dead letters for good; None: all. Raises `NotFound` if there is no dead queue."""
        return self._work_off_dead(ids, queue, lambda _: "", "purge_dead", operator, reason)

    def _preview_replay(self, selection: RejectedSelection, *, again: bool, seconds: float | None) -> ActionResult:
        found = self._replay(selection, lambda _: None, None, again=again, seconds=seconds)
        return ActionResult(
            record_id=None,
            matched=found.tally.matched,
            changed=found.tally.changed,
            expired=0,
            skipped=tuple(found.skipped),
            codes=tuple(self._rejections.count(selection, again=again)),
        )

    def _replay(
        self,
        selection: RejectedSelection,
        publish: Callable[[Raw], None],
        record: UUID | None,
        *,
        again: bool,
        progress: Progress | None = None,
        seconds: float | None = None,
    ) -> _Outcomes:
        """Without a `record` nothing is marked."""
        found, last = _Outcomes("rejected message"), None
        end = float("inf") if seconds is None else time.monotonic() + seconds
        while page := self._rejections.page(selection, after=last, again=again):
            published: list[UUID] = []
            try:
                for kept in page:
                    why = _why_not_replayed(kept, again=again)
                    if not why:
                        publish(_raw(kept))
                        published.append(kept.id)
                    found.note(str(kept.id), why)
            finally:
                # What was published is marked, even if the next one fails.
                if record is not None:
                    self._rejections.mark_replayed(published, record, found.tally)
            last = page[-1].id
            if progress:
                progress(found.tally)
            if time.monotonic() > end:
                return found
        found.miss(sorted({str(value) for value in selection.ids}))
        return found

    def _work_off_dead(
        self,
        ids: Sequence[str] | None,
        queue: DeadQueue,
        act: Callable[[DeadLetter], str],
        action: str,
        operator: str,
        reason: str | None,
    ) -> ActionResult:
        """`act` acts on a letter, or returns why it may not."""
        selection: Mapping[str, Any] = {"all": True} if ids is None else {"ids": list(ids)}
        begun = self._operating.begin(operator, action, selection, reason)
        found = _Outcomes("dead letter")

        def handle(letter: DeadLetter) -> bool:
            if ids is not None and letter.id not in ids:
                return False
            why = act(letter)
            found.note(letter.id, why)
            return not why

        try:
            queue.each_dead_letter(handle)
        except BaseException:
            self._operating.note(begun.id, found.tally, is_finished=False)
            raise
        found.miss(dict.fromkeys(ids or ()))
        self._operating.note(begun.id, found.tally, is_finished=True)
        return result(begun.id, found.tally, found.skipped)


class _Outcomes:
    """What became of each message of a run, counted."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._seen: set[str] = set()
        self.tally = ActionCounts()
        self.skipped: list[Skipped] = []

    def note(self, id_: str, why: str) -> None:
        """`why` it was skipped; "" if it was not."""
        self._seen.add(id_)
        if why:
            self.skipped.append(Skipped(id_, why))
        self.tally += ActionCounts(1, int(not why), 0, int(bool(why)))

    def miss(self, ids: Iterable[str]) -> None:
        """Count those that were not there."""
        for id_ in ids:
            if id_ not in self._seen:
                self.note(id_, f"there is no such {self._kind}")


def _check_rejected(selection: RejectedSelection) -> None:
    if not selection.ids and not selection.as_dict()["filter"]:
        raise WrongSelection("nothing is selected: give ids or conditions")


def _raw(kept: KeptRejection) -> Raw:
    from notifier.broker.amqp_transport import RAW_PROPERTIES
    from notifier.broker.dead_letters import Raw

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


def _edited(kept: KeptRejection, body: bytes) -> Raw:
    from notifier.broker.dead_letters import Raw

    headers = {name: value for name, value in kept.headers.items() if name == "traceparent"}
    return Raw(kept.queue, body, headers, content_type="application/json", broker_user=kept.broker_user)


def _why_not_replayed(kept: KeptRejection, *, again: bool) -> str:
    if why := _why_not_published(kept, again=again):
        return why
    if kept.body_size > len(kept.body):
        size = f"only {len(kept.body)} of its {kept.body_size} bytes were kept"
        return f"{size}: it must come from its producer again"
    if _lacks_common_fields(kept):
        return "it is an entry of a batch, kept without the fields that its batch gave it: publish the batch again"
    return ""


def _why_not_published(kept: KeptRejection, *, again: bool) -> str:
    """Whatever its body is."""
    if kept.problem is not None:
        return kept.problem
    if _pair_of(kept.queue) is None:
        return f"it came by {kept.queue}, which is not a queue of producers"
    if kept.replayed_at is not None and not again:
        return f"it was replayed at {kept.replayed_at:%Y-%m-%d %H:%M:%S} UTC"
    return ""


def _changed(before: bytes, after: bytes) -> list[str]:
    """Fields of the contract that have another value. The names of others may be anything, so they stay out of the
    operator's record."""
    old, new = decode(before), decode(after)
    if not isinstance(old, dict) or not isinstance(new, dict):
        return ["body"]
    names = Message.model_fields.keys() | Envelope.model_fields.keys()
    return sorted(name for name in names if old.get(name) != new.get(name))


def _pair_of(queue: str | None) -> tuple[Channel, Lane] | None:
    """Of a queue of producers: what it carries. None: it is another one."""
    from notifier.broker.topology import notify_queue_name, pairs

    return next((pair for pair in pairs() if queue == notify_queue_name(*pair)), None)


def _lacks_common_fields(kept: KeptRejection) -> bool:
    """Whether it is an entry whose producer and template may have stood in its batch only."""
    if kept.entry is None:
        return False
    try:
        value = json.loads(kept.body)
    except (ValueError, RecursionError):
        return True
    return not isinstance(value, dict) or not {"producer", "template"} <= value.keys()
