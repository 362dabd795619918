"""Handles provider reports that come by webhooks: whether they are genuine, and what follows. It knows no provider
by name.

A report is recorded, and moves the status if the table of transitions allows it. A recipient who can never be
reached, or who opted out, is suppressed in the same transaction. A report about something unknown is dropped
silently, because an answer must not reveal which notifications exist.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any
from uuid import UUID

from notifier.config.logs import log
from notifier.config.settings import Settings
from notifier.config.structure import ProviderTable
from notifier.domain.errors import ConfigurationError, InvalidMessage, NotFound, TemplateInvalid
from notifier.domain.recipient_identity import number_faults
from notifier.domain.statuses import Channel, Reason, SuppressionReason
from notifier.feedback.suppressions import GLOBAL, Suppressions, sender_scope
from notifier.providers.base import InboundWish, Report, Webhook, WebhookRequest, Wish, id_space
from notifier.providers.registry import webhook_kinds
from notifier.rendering import Renderer, Template
from notifier.store.provider_reports import NewReport, ProviderReportRepository, RecordedReport, Reported
from notifier.store.records import NewSuppression

#: Without a receipt, the provider is asked this long after the message was sent, and then no more. Seconds.
ASK_AT_SECONDS = (300.0, 1_800.0, 7_200.0, 28_800.0, 115_200.0)


class Receipts:
    """Handles reports. Thread-safe. `receive` and `record` raise `ServiceUnavailable` while the database is
    unreachable, so that the provider tries again."""

    def __init__(
        self,
        reports: ProviderReportRepository,
        suppressions: Suppressions,
        renderer: Renderer,
        settings: Settings,
    ) -> None:
        self._reports = reports
        self._suppressions = suppressions
        self._renderer = renderer
        self._settings = settings
        self._kinds = webhook_kinds(settings, _leave_out)

    def webhooks(self) -> Iterator[tuple[str, type[Webhook[Any]]]]:
        """Every webhook of every configured kind, together with the kind."""
        for name, kind in self._kinds.items():
            yield from ((name, webhook) for webhook in kind.webhooks)

    def receive(self, kind: str, webhook: type[Webhook[Any]], request: WebhookRequest) -> bool:
        """Apply a provider's call. Returns False if no configured provider signed it; then nothing was done."""
        call, sender = webhook(request), self._kinds[kind]
        providers = [name for name, options in sender.accounts.items() if call.is_signed_by(options)]
        if not providers:
            return False
        if not call.is_fresh(self._reports.now):
            log.warning("webhook.stale", provider=providers[0])
            return False
        space = id_space(sender.provider, providers[0])
        for one in call.reports():
            self.record(one.notification_id, one.attempt, providers, one.report, parts=one.parts, id_space=space)
        for wish in call.wishes():
            self._grant(wish, providers[0])
        return True

    def record(
        self,
        notification: UUID,
        attempt: int,
        providers: Sequence[str],
        report: Report,
        *,
        parts: int = 1,
        id_space: str | None = None,
        is_proof: bool = True,
    ) -> RecordedReport:
        """Record a genuine provider report, with what follows from it. `is_proof`, `id_space`: see `NewReport`."""
        new = NewReport(
            notification_id=notification,
            attempt=attempt,
            providers=providers,
            provider_message_id=report.provider_message_id,
            words=report.words,
            status=report.status,
            reason=report.reason,
            occurred_at=report.occurred_at,
            parts=parts,
            ask_in_seconds=ASK_AT_SECONDS[0],
            id_space=id_space,
            is_proof=is_proof,
        )
        recorded = self._reports.record(new, lambda found: self._suppression(found, report))
        log.debug("receipt", provider=providers[0], status=report.status, outcome=recorded)
        return recorded

    def _suppression(self, found: Reported, report: Report) -> NewSuppression | None:
        if not report.suppress:
            return None
        # An opt-out is about one sender; a number that does not exist does not exist for any sender.
        opted_out = report.reason is Reason.OPTED_OUT
        sender = identity_of(found, self._renderer, self._settings)
        return NewSuppression(
            hash_key=found.hash_key,
            channel=found.channel,
            address_hash=found.address_hash,
            scope=sender_scope(sender) if opted_out else GLOBAL,
            reason=SuppressionReason.OPTED_OUT if opted_out else SuppressionReason.INVALID_RECIPIENT,
            source=f"webhook:{found.provider}",
            notification_id=found.id,
            detail=report.words,
            provider=found.provider,
            sender=sender,
        )

    def _grant(self, inbound: InboundWish, provider: str) -> None:
        wish, number = inbound.wish, inbound.number
        if wish is Wish.HELP or number_faults(number, "From"):
            return
        for scope in self._scopes(inbound.senders):
            self._obey(wish, number, scope, f"webhook:{provider}")
        log.info("webhook.wish", provider=provider, reason=wish)

    def _scopes(self, ours: Collection[str]) -> list[str]:
        """The scopes of every identity that sends from this number or service; if there is none, everything."""
        structure = self._settings.structure
        names = sorted({*structure.senders, structure.default_sender})
        scopes = [sender_scope(name) for name in names if self._settings.sender(name).sms in ours]
        return scopes or [GLOBAL]

    def _obey(self, wish: Wish, number: str, scope: str, source: str) -> None:
        reason = SuppressionReason.OPTED_OUT
        try:
            if wish is Wish.STOP:
                self._suppressions.add(
                    channel=Channel.SMS, address=number, scope=scope, reason=reason, source=source, detail="STOP"
                )
            else:
                # START does not undo what an operator decided.
                self._suppressions.lift(
                    channel=Channel.SMS, address=number, scope=scope, reason=reason, source=source, detail="START"
                )
        except InvalidMessage as error:
            # The identity's name cannot be a scope.
            log.warning("webhook.wish_not_kept", error=str(error), reason=wish)


def _leave_out(table: ProviderTable, error: ConfigurationError) -> None:
    log.warning("webhook.provider_left_out", provider=table.name, reason=error.setting)


def template_of(channel: Channel, name: str, renderer: Renderer) -> Template | None:
    """The template's current version; None if it no longer exists."""
    try:
        return renderer.template(channel, name)
    except (NotFound, TemplateInvalid):
        return None


def identity_of(found: Reported, renderer: Renderer, settings: Settings) -> str:
    return identity(found.channel, found.sender, found.template, renderer, settings)


def identity(channel: Channel, sender: str | None, template: str, renderer: Renderer, settings: Settings) -> str:
    """The sender identity of a message with this sender (or none) and this template."""
    found = template_of(channel, template, renderer) if sender is None else None
    return settings.sender_name(found.sender if found else sender)
