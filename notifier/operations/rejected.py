"""Rejected messages and dead letters: publish them again, or delete them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from notifier.domain.errors import Fault, InvalidMessage, NotFound, WrongSelection
from notifier.domain.producers import Origin, ProducerProof
from notifier.operations.replayable import (
    changed,
    edited,
    key_of,
    original,
    pair_of,
    why_not_published,
    why_not_replayed,
)
from notifier.operations.results import ActionResult, Progress, Skipped, by_id, event_text, result, run_pages
from notifier.store.operator_actions import ActionCounts, Operating
from notifier.store.rejected import KeptRejection, Rejections
from notifier.store.rejected_selection import CLAIM_SECONDS, RejectedSelection

if TYPE_CHECKING:  # slow to import, and most commands need none of it
    from notifier.broker.dead_letters import DeadLetter, Handle, Raw
    from notifier.domain.statuses import Channel, Lane

    #: Why a message of this channel and lane would be rejected now; empty: it would not be.
    Check = Callable[[Raw, Channel, Lane, Origin], Sequence[Fault]]
    #: Takes a message of this channel and lane in, as the intake does. When it returns, it is recorded.
    TakeIn = Callable[[Raw, Channel, Lane, Origin], "TakenIn"]


#: A page publishes for no longer than this after its claim, with which the last publication ends in time. Seconds.
PUBLISH_SECONDS = CLAIM_SECONDS / 2
#: Of an edited copy against which the contract has nothing, but what the record holds.
_REJECTED_TOO = "its edited copy was rejected, too, and is among the rejected messages with the reason"


class DeadQueue(Protocol):
    """Where the broker keeps what it gave up on. `broker.dead_letters.RawPublisher` is one."""

    def each_dead_letter(
        self, handle: Handle, *, limit: int | None = None, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Pass each to `handle`, and remove those for which it returns True, until `until` says stop."""

    def publish(self, raw: Raw) -> None:
        """Put a message into its queue."""


class TakenIn(Protocol):
    """Counts of messages: one that is no batch is one."""

    @property
    def accepted(self) -> int: ...
    @property
    def duplicates(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Run:
    """How a replay goes about."""

    publish: Callable[[Raw], None]
    #: None: a dry run, which claims and marks nothing.
    record: UUID | None
    #: Also those that were replayed before.
    again: bool
    #: Also those of which an interrupted replay may have published an edited copy: the operator named them.
    over: bool


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

        One that was replayed before, or that another replay has in hand, is left alone and says by whom; with
        `again` the former is not. After a crash one may be published twice, which does no harm: it is the same
        message, with the same key (see `store.rejected`). `seconds`: begin no page after these; the same call
        again goes on with those that are not marked as replayed.

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
        run = _Run(publish, begun.id, again, again and bool(selection.ids))
        found = self._replay(selection, run, progress=progress, seconds=seconds)
        self._operating.note(begun.id, found.tally, is_finished=True)
        return result(begun.id, found.tally, found.skipped)

    def replay_edited(
        self,
        message: UUID,
        body: bytes,
        take_in: TakeIn,
        check: Check,
        *,
        operator: str,
        reason: str | None = None,
        over: bool = False,
        dry_run: bool = False,
    ) -> ActionResult:
        """Take another body in, in place of that of a rejected message, which stays on record as it came.

        Its proof is that an operator wrote it, whoever published the first one; its story says who. It does not go
        over the broker, where that would be a claim. Of its headers, which are about other bytes, the trace alone
        goes along. Of several at once one is taken in. If that fails, or we are killed meanwhile, it may be
        recorded all the same, so the message is left alone until somebody says `over`: that they looked. If what
        the record holds stands against it, the message counts as not replayed.

        Raises:
            InvalidMessage: `check` still finds faults.
            NotFound: there is no such message.
            WrongSelection: it cannot be published, or was before, or somebody else does it now.
        """
        kept = self._kept(message, over=over)
        pair = pair_of(kept.queue)
        assert pair is not None, "others are not replayed"
        raw = edited(kept, body)
        if faults := check(raw, *pair, Origin(ProducerProof.OPERATOR)):
            raise InvalidMessage(faults)
        counts = ActionCounts(1, 1)
        if dry_run:
            return ActionResult(None, counts.matched, counts.changed, 0)
        selection = {"ids": [str(message)], "changed": changed(kept.body, body), "published": key_of(body)}
        record = self._rejections.claim_for_edit(message, operator, selection, reason, over=over)
        if record is None:
            self._kept(message, over=over)  # says who was first
            raise WrongSelection("somebody else replayed it just now: load the page again")
        note = event_text(f"rejected message {message} edited", operator, reason, record)
        taken = take_in(raw, *pair, Origin(ProducerProof.OPERATOR, f"operator:{operator}", note))
        is_in_record = taken.accepted or taken.duplicates
        counts = ActionCounts(1, 1) if is_in_record else ActionCounts(1, 0, 0, 1)
        published, left = ([message], []) if is_in_record else ([], [message])
        self._rejections.end_claims(published, left, record, counts)
        self._operating.note(record, counts, is_finished=True)
        return result(record, counts, [Skipped(str(one), _REJECTED_TOO) for one in left])

    def _kept(self, message: UUID, *, over: bool) -> KeptRejection:
        """One that an edited copy may take the place of. Raises `NotFound`, `WrongSelection`."""
        found = self._rejections.page(RejectedSelection(ids=(message,)), after=None)
        if not found:
            raise NotFound(f"no rejected message has the id {message}")
        if why := why_not_published(found[0], again=False, over=over):
            raise WrongSelection(why)
        return found[0]

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
        self,
        ids: Sequence[str] | None,
        queue: DeadQueue,
        *,
        operator: str,
        reason: str | None = None,
        seconds: float | None = None,
    ) -> ActionResult:
        """Publish dead letters again to the queues they died in, and take them out of the dead queue.

        None for `ids` is all of them. The broker gives each to one reader alone, so two at once share them. After
        a crash the last one may be published twice: the same message, with the same key. `seconds`: begin none
        after these; the same call again goes on with the rest.

        Raises:
            NotFound: the broker has no dead queue.
        """

        def replay(letter: DeadLetter) -> str:
            if pair_of(letter.queue) is None:
                return f"it died in {letter.queue or 'no queue that is known'}, which is not a queue of producers"
            queue.publish(letter.raw)
            return ""

        end = float("inf") if seconds is None else time.monotonic() + seconds
        return self._work_off_dead(ids, queue, replay, "replay_dead", operator, reason, end=end)

    def purge_dead(
        self, ids: Sequence[str] | None, queue: DeadQueue, *, operator: str, reason: str | None = None
    ) -> ActionResult:
        """Delete dead letters for good; None: all. Raises `NotFound` if there is no dead queue."""
        return self._work_off_dead(ids, queue, lambda _: "", "purge_dead", operator, reason)

    def _preview_replay(self, selection: RejectedSelection, *, again: bool, seconds: float | None) -> ActionResult:
        run = _Run(lambda _: None, None, again, again and bool(selection.ids))
        found = self._replay(selection, run, seconds=seconds)
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
        run: _Run,
        *,
        progress: Progress | None = None,
        seconds: float | None = None,
    ) -> _Outcomes:
        found, last = _Outcomes("rejected message"), None
        end = float("inf") if seconds is None else time.monotonic() + seconds
        while page := self._rejections.page(selection, after=last, again=run.again):
            last = self._replay_page(page, run, found)
            if progress:
                progress(found.tally)
            if time.monotonic() > end:
                return found
        found.miss(sorted({str(value) for value in selection.ids}))
        return found

    def _replay_page(self, page: Sequence[KeptRejection], run: _Run, found: _Outcomes) -> UUID:
        """Returns the id of the last one looked at: the claim does not last for a whole page of a slow broker."""
        whys = {one.id: why_not_replayed(one, again=run.again, over=run.over) for one in page}
        ready = [id_ for id_, why in whys.items() if not why]
        until = time.monotonic() + PUBLISH_SECONDS
        claimed: Collection[UUID] = ready
        if run.record is not None:
            claimed = self._rejections.claim(ready, run.record, again=run.again, over=run.over)
            whys |= self._lost([id_ for id_ in ready if id_ not in claimed], run)
        published: list[UUID] = []
        try:
            for kept in page:
                if not whys[kept.id]:
                    run.publish(original(kept))
                    published.append(kept.id)
                found.note(str(kept.id), whys[kept.id])
                if time.monotonic() > until:
                    break
        finally:
            # What was published is marked, even if the next one fails.
            if run.record is not None:
                left = [id_ for id_ in claimed if id_ not in published]
                self._rejections.end_claims(published, left, run.record, found.tally)
        return kept.id

    def _lost(self, ids: Sequence[UUID], run: _Run) -> dict[UUID, str]:
        """Why: to whom others were lost since the page was read."""
        if not ids:
            return {}
        now = self._rejections.page(RejectedSelection(ids=tuple(ids)), after=None)
        whys = {one.id: why_not_replayed(one, again=run.again, over=run.over) for one in now}
        return {id_: whys.get(id_) or "somebody else replayed or deleted it just now" for id_ in ids}

    def _work_off_dead(
        self,
        ids: Sequence[str] | None,
        queue: DeadQueue,
        act: Callable[[DeadLetter], str],
        action: str,
        operator: str,
        reason: str | None,
        *,
        end: float = float("inf"),
    ) -> ActionResult:
        """`act` acts on a letter, or returns why it may not. `end`: take none after it, by the monotonic clock."""
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
            queue.each_dead_letter(
                # One is done however short the time is: a run that is repeated comes to its end.
                handle,
                until=lambda: (
                    (ids is not None and found.has_seen(ids))
                    or (found.tally.matched > 0 and time.monotonic() > end)
                ),
            )
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

    def has_seen(self, ids: Iterable[str]) -> bool:
        return self._seen.issuperset(ids)

    def miss(self, ids: Iterable[str]) -> None:
        """Count those that were not there."""
        for id_ in ids:
            if id_ not in self._seen:
                self.note(id_, f"there is no such {self._kind}")


def _check_rejected(selection: RejectedSelection) -> None:
    if not selection.ids and not selection.as_dict()["filter"]:
        raise WrongSelection("nothing is selected: give ids or conditions")
