"""What providers tell us by webhooks: whether it is really them, and what follows.

A report goes into the record, and moves the status as far as the table of transitions lets it; a recipient whom it
calls unreachable for good, or who asked for no more, is suppressed in the same transaction. A report about nothing
that we know is dropped without a word: an answer must not tell which notifications there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from notifier.config.logs import log
from notifier.config.settings import Settings
from notifier.domain.errors import ConfigurationError, InvalidMessage, NotFound, TemplateInvalid
from notifier.domain.recipient_identity import number_faults
from notifier.domain.statuses import Channel, Reason, SuppressionReason
from notifier.feedback.suppressions import GLOBAL, Suppressions, sender_scope
from notifier.providers.base import Report
from notifier.providers.twilio import webhooks as twilio_reports
from notifier.providers.twilio.webhooks import Wish
from notifier.providers.vonage import webhooks as vonage_reports
from notifier.rendering import Renderer, Template
from notifier.store.provider_reports import NewReport, ProviderReportRepository, RecordedReport, Reported
from notifier.store.records import NewSuppression

#: While no receipt comes, the provider is asked so long after the message was sent, and then no more. Seconds.
ASK_AT_SECONDS = (300.0, 1_800.0, 7_200.0, 28_800.0, 115_200.0)


@dataclass(frozen=True, slots=True)
class Hook:
    """One request of a provider, as it came."""

    #: From the first slash on, with the query if there is one: what follows the public URL.
    path: str
    body: bytes
    signature: str = ""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class _Account:
    """One account at a provider, as one `[[providers]]` has it."""

    provider: str
    secret: str = field(repr=False)
    public_url: str = ""
    method: str = ""


class Receipts:
    """Thread-safe. Every method raises `ServiceUnavailable` while the database is away, so that the provider may
    try again. The hooks return False if the provider did not sign it: nothing was done."""

    def __init__(
        self, book: ProviderReportRepository, suppressions: Suppressions, renderer: Renderer, settings: Settings
    ) -> None:
        self._book = book
        self._suppressions = suppressions
        self._renderer = renderer
        self._settings = settings
        self._twilio = _accounts(settings, "twilio", "account_sid", "auth_token")
        self._vonage = _accounts(settings, "vonage", "api_key", "signature_secret")

    def twilio_status(self, hook: Hook, notification: UUID, attempt: int) -> bool:
        """A status callback: how a message of ours stands."""
        form, providers = self._twilio_form(hook)
        if form is None:
            return False
        report = twilio_reports.read_callback(form)
        if report is not None:
            self.record(notification, attempt, providers, report, id_space=twilio_reports.ID_SPACE)
        return True

    def twilio_inbound(self, hook: Hook) -> bool:
        """A message that somebody wrote to one of our numbers. Of what it says only a keyword counts."""
        form, providers = self._twilio_form(hook)
        if form is None:
            return False
        wish, number = twilio_reports.read_wish(form), form.get("From", "")
        if wish not in (Wish.STOP, Wish.START) or number_faults(number, "From"):
            return True
        ours = {form.get("To", ""), form.get("MessagingServiceSid", "")} - {""}
        source = f"webhook:{providers[0]}"
        for scope in self._scopes(ours):
            self._obey(wish, number, scope, source)
        log.info("webhook.wish", provider=providers[0], reason=wish)
        return True

    def vonage_receipt(self, hook: Hook, notification: UUID, attempt: int, parts: int) -> bool:
        """A delivery receipt: how a part of a message of ours ended."""
        fields = vonage_reports.read_fields(hook.body, hook.content_type)
        if fields is None:
            return False
        accounts = self._vonage.get(fields.get("api-key", ""), ())
        providers = [each.provider for each in accounts if _has_signed(each, fields)]
        if not providers:
            return False
        if not vonage_reports.is_fresh(fields, self._book.now()):
            log.warning("webhook.stale", provider=providers[0])
            return False
        report = vonage_reports.read_receipt(fields)
        # The address is not part of what is signed, and this repeats it.
        if report is not None and fields.get("client-ref") == str(notification):
            space = vonage_reports.ID_SPACE
            self.record(notification, attempt, providers, report, parts=parts, id_space=space)
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
        """Write a report that is known to be the provider's own, with what follows from it. `is_proof`,
        `id_space`:
        see `NewReport`."""
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
        recorded = self._book.record(new, lambda found: self._suppression(found, report))
        log.debug("receipt", provider=providers[0], status=report.status, outcome=recorded)
        return recorded

    def _twilio_form(self, hook: Hook) -> tuple[twilio_reports.Form | None, list[str]]:
        """The form and the providers whose account has signed it; None if none has."""
        form = twilio_reports.read_form(hook.body)
        if form is None or not hook.signature:
            return None, []
        providers = [
            account.provider
            for account in self._twilio.get(form.get("AccountSid", ""), ())
            # The host that the request names is the proxy's business; signed is what Twilio was told to call.
            if account.public_url
            and twilio_reports.is_signed(account.secret, account.public_url + hook.path, form, hook.signature)
        ]
        return (form, providers) if providers else (None, [])

    def _suppression(self, found: Reported, report: Report) -> NewSuppression | None:
        if not report.suppress:
            return None
        # Who opted out did so towards one sender; a number that does not exist is one for nobody.
        opted_out = report.reason is Reason.OPTED_OUT
        sender = identity_of(found, self._renderer, self._settings)
        return self._suppressions.new(
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

    def _scopes(self, ours: set[str]) -> list[str]:
        """Of every identity that sends from this number or service; everything, if none does."""
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
                # What an operator decided, START does not undo.
                self._suppressions.lift(
                    channel=Channel.SMS, address=number, scope=scope, reason=reason, source=source, detail="START"
                )
        except InvalidMessage as error:
            # The name of an identity that cannot be a scope.
            log.warning("webhook.wish_not_kept", error=str(error), reason=wish)


def template_of(found: Reported, renderer: Renderer) -> Template | None:
    """Its template, as it is now; None if there is none any more."""
    return _template(found.channel, found.template, renderer)


def _template(channel: Channel, name: str, renderer: Renderer) -> Template | None:
    try:
        return renderer.template(channel, name)
    except (NotFound, TemplateInvalid):
        return None


def identity_of(found: Reported, renderer: Renderer, settings: Settings) -> str:
    """The name of the sender identity that it came from."""
    return identity(found.channel, found.sender, found.template, renderer, settings)


def identity(channel: Channel, sender: str | None, template: str, renderer: Renderer, settings: Settings) -> str:
    """The name of the identity of a message that names this sender, or none, and this template."""
    found = _template(channel, template, renderer) if sender is None else None
    return settings.sender_name(found.sender if found else sender)


def _has_signed(account: _Account, fields: Mapping[str, str]) -> bool:
    method = account.method or vonage_reports.METHODS[0]
    return vonage_reports.is_signed(account.secret, method, fields)


def _accounts(settings: Settings, kind: str, id_option: str, secret_option: str) -> dict[str, list[_Account]]:
    """Id of the account → who has it. One whose options cannot be read here is left out, not the whole service."""
    found: defaultdict[str, list[_Account]] = defaultdict(list)
    for table in settings.provider_tables():
        if table.kind != kind:
            continue
        try:
            options = settings.provider_options(table)
        except ConfigurationError as error:
            log.warning("webhook.provider_left_out", provider=table.name, reason=error.setting)
            continue
        secret = options.get(secret_option, "").strip()
        if secret:
            url, method = options.get("public_url", "").rstrip("/"), options.get("signature_method", "").strip()
            found[options.get(id_option, "").strip()].append(_Account(table.name, secret, url, method))
    return dict(found)
