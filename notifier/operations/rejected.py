"""Actions on rejected messages and dead letters: publish them again, or delete them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from notifier.operations.results import (
    ActionResult,
    EntryCounts,
    Progress,
    Skipped,
    by_id,
    event_text,
    result,
    run_pages,
)
from notifier.store.operator_actions import ActionCounts, OperatorActions
from notifier.store.rejected import KeptRejection, Rejections
from notifier.store.rejected_selection import CLAIM_SECONDS, RejectedSelection

if TYPE_CHECKING:  # slow to import, and most commands need none of it
    from notifier.broker.dead_letters import DeadLetter, Handle, Raw
    from notifier.domain.statuses import Channel, Lane

    #: Returns why a message of this channel and lane would be rejected now; empty: it would be accepted.
    Check = Callable[[Raw, Channel, Lane, Origin], Sequence[Fault]]
    #: Accepts a message of this channel and lane as the intake does. When it returns, the message is in the
    #: record.
    TakeIn = Callable[[Raw, Channel, Lane, Origin], "TakenIn"]


#: Time limit for publishing one page after its claim. The last publication still ends before the claim does.
#: Seconds.
PUBLISH_SECONDS = CLAIM_SECONDS / 2
#: For an edited copy that keeps the contract, but that the record refuses.
_REJECTED_TOO = "its edited copy was rejected, too, and is among the rejected messages with the reason"


class DeadQueue(Protocol):
    """Where the broker keeps dead letters. `broker.dead_letters.RawPublisher` is the implementation."""

    def each_dead_letter(
        self, handle: Handle, *, limit: int | None = None, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Pass each letter to `handle`, and remove those for which it returns True, until `until` returns True."""

    def publish(self, raw: Raw) -> None:
        """Put a message into its queue."""


class TakenIn(Protocol):
    """Counts of entries; a message that is not a batch counts as one."""

    @property
    def accepted(self) -> int: ...
    @property
    def duplicates(self) -> int: ...
    @property
    def rejected(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Run:
    """Options of one replay."""

    publish: Callable[[Raw], None]
    #: None: a dry run, which claims and marks nothing.
    record: UUID | None
    #: Also replay messages that were replayed before.
    again: bool
    #: Also replay messages of which an interrupted replay may have published an edited copy: the operator named
    #: them.
    over: bool


class Replays:
    """Replays rejected messages and dead letters. Thread-safe. Every method raises `ServiceUnavailable`; pages
    completed before that stay done."""

    def __init__(self, operator_actions: OperatorActions, rejections: Rejections) -> None:
        self._operator_actions = operator_actions
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
        """Publish rejected messages again, byte for byte, to the queues they came from.

        A message that was replayed before, or that another replay is working on, is left alone, and the result
        says by whom. `again` replays messages that were replayed before. After a crash one message may be
        published twice, which does no harm: it is the same message with the same key (see `store.rejected`).
        `seconds`: begin no page after this time. Calling again continues with messages that are not marked as
        replayed.

        Raises:
            WrongSelection: nothing is selected.
        """
        _check_rejected(selection)
        if dry_run:
            return self._preview_replay(selection, again=again, seconds=seconds)
        begun = self._operator_actions.begin(operator, "replay_rejected", selection.as_dict(), reason)
        if not selection.ids:
            # Messages that are rejected again during this replay are left for the next one, or it would never end.
            until = begun.at if selection.until is None else min(begun.at, selection.until)
            selection = replace(selection, until=until)
        run = _Run(publish, begun.id, again, again and bool(selection.ids))
        found = self._replay(selection, run, progress=progress, seconds=seconds)
        self._operator_actions.note(begun.id, found.tally, is_finished=True)
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
        """Accept another body in place of a rejected message's. The rejected message stays in the record as it
        came.

        The proof of the new message is that an operator wrote it, whoever published the original; its story says
        who. It does not go through the broker, where its producer would only be a claim. Of the original's
        headers, which are about other bytes, only the trace is kept. If several operators do this at once, one
        body is accepted. If it fails, or this process is killed, the message may be in the record all the same. So
        the rejected message is left alone until somebody who has checked calls again with `over`. If the record
        refuses the new message, the rejected one counts as not replayed. If it refuses only some entries of a
        batch, the result counts both; the refused entries are kept as rejected messages of their own.

        Raises:
            InvalidMessage: `check` still finds faults.
            NotFound: there is no such message.
            WrongSelection: it cannot be published, was published before, or somebody else is doing it now.
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
        recorded = taken.accepted + taken.duplicates
        if not recorded:
            counts = ActionCounts(matched=1, skipped=1)
            self._rejections.end_claims([], [message], record, counts)
            self._operator_actions.note(record, counts, is_finished=True)
            return result(record, counts, [Skipped(str(message), _REJECTED_TOO)])
        entries = EntryCounts(recorded, taken.rejected) if taken.rejected else None
        more = {} if entries is None else {"entries": asdict(entries)}
        self._rejections.end_claims([message], [], record, counts)
        self._operator_actions.note(record, counts, is_finished=True, **more)
        return replace(result(record, counts, ()), entries=entries)

    def _kept(self, message: UUID, *, over: bool) -> KeptRejection:
        """The rejected message, if an edited copy may take its place. Raises `NotFound`, `WrongSelection`."""
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
        """Permanently delete rejected messages. Raises `WrongSelection` if nothing is selected."""
        _check_rejected(selection)
        if dry_run:
            codes = self._rejections.count(selection)
            total = sum(found.count for found in codes)
            return ActionResult(None, total, total, 0, codes=tuple(codes))
        begun = self._operator_actions.begin(operator, "purge_rejected", selection.as_dict(), reason)
        tally = run_pages(by_id(partial(self._rejections.purge_page, selection, begun.id)), progress)
        missing = max(0, len(set(selection.ids)) - tally.changed)
        tally += ActionCounts(missing, 0, 0, missing)
        self._operator_actions.note(begun.id, tally, is_finished=True)
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
        """Publish dead letters again to the queues they died in, and remove them from the dead queue.

        None for `ids` means all. The broker gives each letter to one reader, so two calls at once share them.
        After a crash the last letter may be published twice: it is the same message with the same key. `seconds`:
        begin no letter after this time; calling again continues with the rest.

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
        """Permanently delete dead letters; None: all. Raises `NotFound` if there is no dead queue."""
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
        """Returns the id of the last message looked at, because a claim does not last for a whole page with a slow
        broker."""
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
            # Published messages are marked even if the next one fails.
            if run.record is not None:
                left = [id_ for id_ in claimed if id_ not in published]
                self._rejections.end_claims(published, left, run.record, found.tally)
        return kept.id

    def _lost(self, ids: Sequence[UUID], run: _Run) -> dict[UUID, str]:
        """Why these messages were lost since the page was read: who took them."""
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
        """`act` acts on a letter, or returns why it may not. `end`: take no letter after this time of the
        monotonic clock."""
        selection: Mapping[str, Any] = {"all": True} if ids is None else {"ids": list(ids)}
        begun = self._operator_actions.begin(operator, action, selection, reason)
        found = _Outcomes("dead letter")

        def handle(letter: DeadLetter) -> bool:
            if ids is not None and letter.id not in ids:
                return False
            why = act(letter)
            found.note(letter.id, why)
            return not why

        try:
            queue.each_dead_letter(
                # One letter is always done, however short the time is, so that a repeated run comes to an end.
                handle,
                until=lambda: (
                    (ids is not None and found.has_seen(ids))
                    or (found.tally.matched > 0 and time.monotonic() > end)
                ),
            )
        except BaseException:
            self._operator_actions.note(begun.id, found.tally, is_finished=False)
            raise
        found.miss(dict.fromkeys(ids or ()))
        self._operator_actions.note(begun.id, found.tally, is_finished=True)
        return result(begun.id, found.tally, found.skipped)


class _Outcomes:
    """The counted results for the messages of a run."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._seen: set[str] = set()
        self.tally = ActionCounts()
        self.skipped: list[Skipped] = []

    def note(self, id_: str, why: str) -> None:
        """Count one message. `why` it was skipped; "" if it was not."""
        self._seen.add(id_)
        if why:
            self.skipped.append(Skipped(id_, why))
        self.tally += ActionCounts(1, int(not why), 0, int(bool(why)))

    def has_seen(self, ids: Iterable[str]) -> bool:
        return self._seen.issuperset(ids)

    def miss(self, ids: Iterable[str]) -> None:
        """Count messages that were not there."""
        for id_ in ids:
            if id_ not in self._seen:
                self.note(id_, f"there is no such {self._kind}")


def _check_rejected(selection: RejectedSelection) -> None:
    if not selection.ids and not selection.as_dict()["filter"]:
        raise WrongSelection("nothing is selected: give ids or conditions")
