"""Asks providers for missing receipts: a few times with growing pauses. After that the message stays `sent`.

Only the message's age decides when to ask, so no process has to count. Asking changes nothing at the provider, so
a crash only costs one more question.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from uuid import UUID

from notifier.config.logs import log, log_failure
from notifier.domain.errors import SendError, ServiceUnavailable
from notifier.feedback.receipts import ASK_AT_SECONDS, Receipts
from notifier.providers.base import CallsBack, Provider, Report, Reports
from notifier.store.provider_reports import ProviderReportRepository, Silent

ASK_SECONDS = 15.0
#: Maximum concurrent questions.
_AT_ONCE = 8
#: A provider that failed is not asked again before this. Seconds.
_AWAY_SECONDS = 30.0
#: A question that failed is asked again after this …
_AGAIN_SECONDS = 1_800.0
#: … until the message is this old. Also the wait for a receipt if the provider cannot be asked. Seconds.
RECEIPT_WAIT_SECONDS = 4 * 86_400.0
#: A question that is due within this is asked now. Seconds.
_NOW_SECONDS = 60.0


def first_wait(provider: Provider) -> float | None:
    """How long after acceptance a receipt counts as missing, in seconds; None: none is expected."""
    if isinstance(provider, Reports):
        # The simulator knows sooner.
        return getattr(provider, "report_after_seconds", ASK_AT_SECONDS[0])
    return RECEIPT_WAIT_SECONDS if isinstance(provider, CallsBack) and provider.has_webhook else None


def next_wait(age_seconds: float, *, was_asked: bool) -> float | None:
    """Seconds until the next question about a message of this age; None: there is none."""
    later = [point for point in ASK_AT_SECONDS if point > age_seconds + _NOW_SECONDS]
    if later:
        return later[0] - age_seconds
    return None if was_asked or age_seconds > RECEIPT_WAIT_SECONDS else _AGAIN_SECONDS


class ReceiptPoller:
    """Asks for receipts. Thread-safe; one for each process."""

    def __init__(
        self,
        reports: ProviderReportRepository,
        receipts: Receipts,
        providers: Mapping[str, Provider],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._reports = reports
        self._receipts = receipts
        self._providers = providers
        self._loop = loop
        #: Provider → until when it is not asked, on the monotonic clock. Used only on the event loop.
        self._away: dict[str, float] = {}

    def ask(self, ids: Sequence[UUID]) -> int:
        """Ask about those of `ids` that are `sent` without a receipt. Returns how many have ended."""
        silent = self._reports.silent(ids)
        if not silent:
            return 0
        longest = (len(silent) // _AT_ONCE + 2) * (ASK_SECONDS + 1)
        answers = asyncio.run_coroutine_threadsafe(self._ask_all(silent), self._loop).result(timeout=longest)
        ended = 0
        waits: list[tuple[UUID, float]] = []
        over: dict[str, list[UUID]] = {}
        for one, answer in zip(silent, answers, strict=True):
            if isinstance(answer, Report) and self._is_recorded(one, answer):
                ended += answer.is_final
            # Also for a message that has ended: an answer changes no status that has moved.
            can_be_asked = isinstance(self._providers.get(one.provider), Reports)
            wait = next_wait(one.age_seconds, was_asked=isinstance(answer, Report)) if can_be_asked else None
            if wait is None:
                over.setdefault(_why(can_be_asked, isinstance(answer, Report)), []).append(one.id)
            else:
                waits.append((one.id, wait))
        if waits:
            self._reports.ask_again(waits)
        for why, given_up in over.items():
            self._reports.give_up(given_up, f"no receipt came, and {why}: it stays sent")
        log.info("receipts.asked", count=len(silent))
        return ended

    def _is_recorded(self, one: Silent, report: Report) -> bool:
        try:
            # The answer is about the id in the question; it does not prove whose message that is.
            self._receipts.record(one.id, one.attempt, [one.provider], report, is_proof=False)
        except ServiceUnavailable:
            raise
        except Exception as error:
            # This one is asked again later; the others are recorded now.
            log_failure("receipts.failed", error, notification_id=str(one.id))
            return False
        return True

    async def _ask_all(self, silent: Sequence[Silent]) -> list[Report | None]:
        turns = asyncio.Semaphore(_AT_ONCE)
        return await asyncio.gather(*(self._ask(one, turns) for one in silent))

    async def _ask(self, one: Silent, turns: asyncio.Semaphore) -> Report | None:
        """Ask about one message; None: there is no answer. After a failure, neither this nor other tasks ask that
        provider for a while, because each of them holds up a thread."""
        provider: object = self._providers.get(one.provider)
        if not isinstance(provider, Reports):
            return None
        async with turns:
            if time.monotonic() < self._away.get(one.provider, 0.0):
                return None
            try:
                # Guards against providers that do not keep the deadline themselves.
                async with asyncio.timeout(ASK_SECONDS + 0.5):
                    return await provider.ask(one.provider_message_id, deadline_seconds=ASK_SECONDS)
            except (SendError, TimeoutError) as error:
                self._away[one.provider] = time.monotonic() + _AWAY_SECONDS
                log.warning("receipts.later", provider=one.provider, error=type(error).__name__)
                return None


def _why(can_be_asked: bool, was_asked: bool) -> str:
    if not can_be_asked:
        return "its provider cannot be asked"
    return "its provider knows no more" if was_asked else "its provider did not answer"
