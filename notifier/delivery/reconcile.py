"""Settles calls that ended without an answer: asks the provider where that is possible, then policy decides.

The look-up comes first because a second copy cannot be taken back. It finds messages by their text, and the same
text may have gone to the same number more than once. So a message that is found counts only if it can be
attributed: no other attempt has it already, and there are as many messages as attempts that wait for one.

Crash points. A look-up changes nothing at the provider, and its findings are written at its end, in one
transaction. After a crash before that, another look-up follows. The attempts that a message may belong to are read
**after** the look-up that found it. An attempt's row is committed before its call, so by then every attempt that
may have caused the message is among them, with the message's id or without. What changes between that read and the
write, such as a late answer or another look-up, locks the message's row first or finds it there: see
`store.provider_messages`. The same task run twice, or in two workers, writes the same result once.

A look-up may take as long as its deadline, in a thread that others want. So only few threads of a process do
look-ups at the same time, each for a limited time. If a look-up at a provider fails, no thread of the process asks
that provider for a while. What is left out stays as it is: the sweep dispatches it again.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from threading import Event
from uuid import UUID

from notifier.config.logs import log, log_failure
from notifier.config.settings import Settings
from notifier.delivery.prepare import Composer, SentContent
from notifier.domain.errors import Rejected, SendError, ServiceUnavailable
from notifier.domain.statuses import MessageProof, OnUnknown, Outcome, Status
from notifier.feedback.receipt_polling import first_wait
from notifier.providers.base import LATEST_SECONDS, Provider, Receipt, Reconciles, Sought, id_space
from notifier.providers.outcomes import UNAVAILABLE
from notifier.runtime.thread_share import ThreadShare
from notifier.store.ledger import MAX_CRASHES, Ledger
from notifier.store.records import DeliveryResult, Rivals, Unknown

LOOKUP_SECONDS = 15.0
#: Maximum duration of a task's look-ups: a little less than the time until its ids come again. Seconds.
ROUND_SECONDS = 40.0
#: A provider whose look-up failed is not asked again within this time. Seconds.
AWAY_SECONDS = 40.0
#: If two calls are further apart than this, their messages can be told apart by time: a message may be late, and
#: clocks may differ. Seconds.
NEAR_SECONDS = LATEST_SECONDS + 5.0
#: A look-up is repeated this often if other attempts take what it found; then it waits for its next turn.
_LOOK_UPS = 3


class _Answer(StrEnum):
    """What a look-up says about one attempt, in words for operators."""

    FOUND = "found at the provider"
    MISSING = "the provider does not have it"
    CHANGED = "its template has changed since, so its text cannot be looked for"
    SILENT = "its provider cannot be asked"
    AMBIGUOUS = "the provider's messages with this text cannot be attributed: not as many as attempts that wait"


class Reconciler:
    """Settles unknown outcomes. Thread-safe; one per process. `stop` is set when the process must end."""

    def __init__(
        self,
        ledger: Ledger,
        composer: Composer,
        providers: Mapping[str, Provider],
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        stop: Event | None = None,
    ) -> None:
        self._ledger = ledger
        self._composer = composer
        self._providers = providers
        self._settings = settings
        self._loop = loop
        self._stop = stop or Event()
        # Few threads, so that a provider that hangs holds up nothing else.
        self._threads = ThreadShare(settings.worker_threads // 4)
        #: Provider → time until which it is not asked, on the monotonic clock.
        self._away: dict[str, float] = {}
        #: The last notification whose provider failed. Next time others come first, in case it is the cause.
        self._failed = UUID(int=0)

    def reconcile(self, ids: Sequence[UUID]) -> int:
        """Look up those of `ids` that are still unknown. Returns how many were found at their provider. A
        notification that cannot be looked up now stays as it is and comes again."""
        attempts: defaultdict[UUID, list[Unknown]] = defaultdict(list)
        for attempt in self._ledger.unknown_attempts(ids):
            attempts[attempt.id].append(attempt)
        if not attempts:
            return 0
        with self._threads.turn() as is_ours:
            return self._settle_all(attempts) if is_ours else 0

    def _settle_all(self, attempts: Mapping[UUID, Sequence[Unknown]]) -> int:
        ends_at, found, left = time.monotonic() + ROUND_SECONDS, 0, 0
        for notification in sorted(attempts, key=lambda one: (one <= self._failed, one)):
            unknowns = attempts[notification]
            now = time.monotonic()
            if self._stop.is_set() or now > ends_at or any(self._is_away(each, now) for each in unknowns):
                left += 1
                continue
            if unknowns[0].problem is not None:
                # Neither sent again nor held: it comes again, and can be read when the key is there.
                log.warning("reconcile.later", notification_id=str(unknowns[0].id), reason=unknowns[0].problem)
                continue
            try:
                found += self._settle(unknowns)
            except ServiceUnavailable:
                raise
            except (SendError, TimeoutError) as error:
                id_ = str(unknowns[0].id)
                log.warning("reconcile.later", notification_id=id_, error=type(error).__name__)
            except Exception as error:
                # This notification comes again; the others are settled now.
                log_failure("reconcile.failed", error, notification_id=str(unknowns[0].id))
        if left:
            log.warning("reconcile.later", count=left, reason="no time, or their providers do not answer")
        return found

    def _is_away(self, unknown: Unknown, now: float) -> bool:
        return now < self._away.get(unknown.provider, now)

    def _settle(self, unknowns: Sequence[Unknown]) -> bool:
        answers = []
        for unknown in unknowns:
            answers.append(self._look_up(unknown))
            if answers[-1] is _Answer.FOUND:
                log.info("reconcile.found", notification_id=str(unknown.id), provider=unknown.provider)
                return True
        last = unknowns[-1]
        resend, detail = _decide(last, answers)
        self._ledger.settle_unknown([(last.id, last.claim, resend, detail)])
        return False

    def _look_up(self, unknown: Unknown) -> _Answer:
        """Ask the provider about one attempt, and write what it says.

        Raises:
            Unavailable: nobody can tell now.
        """
        provider, space = _that_can_tell(self._providers.get(unknown.provider))
        if provider is None or space is None:
            return _Answer.SILENT
        content = self._composer.sent_content(unknown)
        if content is None:
            return _Answer.CHANGED
        sought = _sought(unknown, content)
        for _ in range(_LOOK_UPS):
            known = self._rivals(unknown, space, ()).known_ids
            receipts = self._ask(provider, unknown, replace(sought, exclude=known))
            rivals = self._rivals(unknown, space, [receipt.provider_message_id for receipt in receipts])
            free = [receipt for receipt in receipts if receipt.provider_message_id not in rivals.known_ids]
            # If the provider has no message, it says itself how long one may still turn up.
            answer = self._whose(unknown, content, free, rivals) if receipts else _Answer.MISSING
            if answer is _Answer.MISSING and not content.is_same_version:
                return _Answer.CHANGED
            if answer is not _Answer.FOUND:
                return answer
            # This says only that the provider has the message; the next question is how it ended.
            found = _found(unknown, free[0], space, first_wait(self._providers[unknown.provider]))
            if self._ledger.attribute(found):
                return _Answer.FOUND
        raise UNAVAILABLE.error("what was found was attributed to others each time")

    def _whose(self, unknown: Unknown, content: SentContent, free: Sequence[Receipt], rivals: Rivals) -> _Answer:
        """Whether one of the unattributed messages may be given to this attempt.

        Raises:
            Unavailable: more messages may turn up, or an answer that tells whose message it is.
        """
        others = [rival for rival in rivals.attempts if self._says_the_same(rival, content)]
        if free and (all(rival.id == unknown.id for rival in others) or len(free) == len(others) + 1):
            return _Answer.FOUND
        if any(self._is_open(each, rivals.looked_at) for each in (unknown, *(others if free else ()))):
            raise UNAVAILABLE.error("not clear yet: a call may still be answered, or its message turn up")
        return _Answer.AMBIGUOUS if free else _Answer.MISSING

    def _says_the_same(self, rival: Unknown, content: SentContent) -> bool:
        """Whether the rival's message would look the same. Also True if that can no longer be told."""
        other = None if rival.problem else self._composer.sent_content(rival)
        return other is None or (other.sender, other.text.split()) == (content.sender, content.text.split())

    def _is_open(self, attempt: Unknown, now: datetime) -> bool:
        """Whether its provider may still answer, or still create a message for it."""
        ends_at = attempt.finished_at or attempt.started_at + timedelta(seconds=self._settings.lease_seconds)
        return now < ends_at + timedelta(seconds=LATEST_SECONDS)

    def _rivals(self, unknown: Unknown, space: str, found: Sequence[str]) -> Rivals:
        names = [name for name, provider in self._providers.items() if id_space(provider) == space]
        return self._ledger.rivals(unknown, names, space, found, near_seconds=NEAR_SECONDS)

    def _ask(self, provider: Reconciles, unknown: Unknown, sought: Sought) -> Sequence[Receipt]:
        coroutine = provider.find(sought, deadline_seconds=LOOKUP_SECONDS)
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=LOOKUP_SECONDS + 5)
        except (SendError, TimeoutError) as error:
            # `Rejected` refuses only this question, so the provider may still be asked others.
            if not isinstance(error, Rejected):
                wait = getattr(error, "retry_after_seconds", None) or 0.0
                self._away[unknown.provider] = time.monotonic() + max(AWAY_SECONDS, wait)
                self._failed = unknown.id
            raise


def _sought(unknown: Unknown, content: SentContent) -> Sought:
    return Sought(
        notification_id=unknown.id,
        attempt=unknown.number,
        to=unknown.recipient,
        sender=content.sender,
        text=content.text,
        started_at=unknown.started_at,
        finished_at=unknown.finished_at,
        asked_at=unknown.looked_at,
    )


def _that_can_tell(provider: object) -> tuple[Reconciles | None, str | None]:
    return (provider, id_space(provider)) if isinstance(provider, Reconciles) else (None, None)


def _found(unknown: Unknown, receipt: Receipt, space: str, wait: float | None) -> DeliveryResult:
    return DeliveryResult(
        unknown.id,
        unknown.claim,
        Status.SENT,
        detail=f"{_Answer.FOUND}: {receipt.detail}" if receipt.detail else _Answer.FOUND,
        template_version=unknown.template_version,
        number=unknown.number,
        outcome=Outcome.ACCEPTED,
        provider=unknown.provider,
        provider_message_id=receipt.provider_message_id,
        id_space=space,
        proof=MessageProof.LOOK_UP,
        due_in_seconds=wait,
    )


def _decide(unknown: Unknown, answers: Sequence[_Answer]) -> tuple[bool, str]:
    """(whether to send it again, why)."""
    # Of all attempts, the least certain answer counts.
    looked = next(
        (each for each in (_Answer.AMBIGUOUS, _Answer.SILENT, _Answer.CHANGED) if each in answers), _Answer.MISSING
    )
    if unknown.crash_count >= MAX_CRASHES:
        return False, f"{looked}; held, because it was in hand {unknown.crash_count} times when a worker went away"
    if unknown.on_unknown is OnUnknown.RESEND:
        return True, f"{looked}: sent again, as the template says"
    # Hold even if the provider does not have it: it may appear later, and `hold` means never twice.
    return False, f"{looked}: held, as the template says, until a receipt or an operator decides"
