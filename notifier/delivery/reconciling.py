"""What became of calls that ended without an answer: the provider is asked where it can be, then policy decides.

Looking up comes first because sending again is the one thing that cannot be taken back.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

from notifier.config import Settings
from notifier.delivery.asking import first_wait
from notifier.errors import RenderingFailed, SendError, ServiceUnavailable, TemplateInvalid
from notifier.providers.base import Provider, Receipt, Reconciles, Sought
from notifier.rendering import Renderer
from notifier.status import Channel, OnUnknown, Outcome, Status
from notifier.store.ledger import MAX_CRASHES, Ledger
from notifier.store.values import Result, Unknown
from notifier.telemetry import log

#: Deadline of one look-up. Seconds.
LOOKUP_SECONDS = 15.0


class Reconciler:
    """Settles unknown outcomes. Thread-safe; one a process."""

    def __init__(
        self,
        ledger: Ledger,
        renderer: Renderer,
        providers: Mapping[str, Provider],
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ledger = ledger
        self._renderer = renderer
        self._providers = providers
        self._settings = settings
        self._loop = loop

    def reconcile(self, ids: Sequence[UUID]) -> int:
        """Look up what is still unknown among `ids`. Returns how many were found at their provider.

        One that cannot be looked up just now stays as it is and comes again.
        """
        attempts: defaultdict[UUID, list[Unknown]] = defaultdict(list)
        for attempt in self._ledger.unknown_attempts(ids):
            attempts[attempt.id].append(attempt)
        found = 0
        for unknowns in attempts.values():
            if unknowns[0].problem is not None:
                # Neither sent again nor held: it comes again when there is the key.
                log.warning("reconcile.later", notification_id=str(unknowns[0].id), reason=unknowns[0].problem)
                continue
            try:
                found += self._settle(unknowns)
            except ServiceUnavailable:
                raise
            except (SendError, TimeoutError) as error:
                id_ = str(unknowns[0].id)
                log.warning("reconcile.later", notification_id=id_, error=type(error).__name__)
        return found

    def _settle(self, unknowns: Sequence[Unknown]) -> bool:
        missing = 0
        for unknown in unknowns:
            provider = _that_can_tell(self._providers.get(unknown.provider))
            sought = self._sought(unknown) if provider else None
            if provider is None or sought is None:
                continue
            receipt = self._ask(provider, sought)
            if receipt is not None:
                # Found only says that the provider has it: how it ended is asked for next.
                wait = first_wait(self._providers[unknown.provider])
                self._ledger.finish([_found(unknown, receipt, wait)])
                log.info("reconcile.found", notification_id=str(unknown.id), provider=unknown.provider)
                return True
            missing += 1
        last = unknowns[-1]
        resend, detail = _decide(last, is_missing=missing == len(unknowns))
        self._ledger.settle_unknown([(last.id, last.claim, resend, detail)])
        return False

    def _ask(self, provider: Reconciles, sought: Sought) -> Receipt | None:
        coroutine = provider.find(sought, deadline_seconds=LOOKUP_SECONDS)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=LOOKUP_SECONDS + 5)

    def _sought(self, unknown: Unknown) -> Sought | None:
        """What was sent, rendered again; None if the template no longer renders it."""
        try:
            template = self._renderer.template(unknown.channel, unknown.template)
            rendered = self._renderer.render(unknown.channel, unknown.template, unknown.locale, unknown.context)
        except (LookupError, TemplateInvalid, RenderingFailed):
            return None
        identity = self._settings.sender(unknown.sender or template.sender)
        sender = identity.sms if unknown.channel is Channel.SMS else identity.email
        return Sought(
            notification_id=unknown.id,
            attempt=unknown.number,
            to=unknown.recipient,
            sender=sender or "",
            text=rendered.text,
            started_at=unknown.started_at,
            finished_at=unknown.finished_at,
            exclude=frozenset(unknown.known_ids),
            asked_at=unknown.looked_at,
        )


def _that_can_tell(provider: object) -> Reconciles | None:
    return provider if isinstance(provider, Reconciles) else None


def _found(unknown: Unknown, receipt: Receipt, wait: float | None) -> Result:
    return Result(
        unknown.id,
        unknown.claim,
        Status.SENT,
        detail=f"found at the provider: {receipt.detail}" if receipt.detail else "found at the provider",
        number=unknown.number,
        outcome=Outcome.ACCEPTED,
        provider=unknown.provider,
        provider_message_id=receipt.provider_message_id,
        due_in_seconds=wait,
    )


def _decide(unknown: Unknown, *, is_missing: bool) -> tuple[bool, str]:
    """(send it again, why)."""
    looked = "the provider does not have it" if is_missing else "its provider cannot be asked"
    if unknown.crash_count >= MAX_CRASHES:
        return False, f"{looked}; held, because it was in hand {unknown.crash_count} times when a worker went away"
    if unknown.on_unknown is OnUnknown.RESEND:
        return True, f"{looked}: sent again, as the template says"
    # Even if the provider does not have it: it may only not show it yet, and `hold` means never twice.
    return False, f"{looked}: held, as the template says, until a receipt or an operator decides"
