"""A claim made ready to go: rendered, with the identities it goes out under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from uuid import UUID

from notifier.config.settings import Settings
from notifier.delivery.suppression import guard_of
from notifier.domain.errors import NotFound, Rejected, TemplateInvalid, Unavailable
from notifier.domain.statuses import Channel, Reason
from notifier.providers.base import Attachment, Outgoing
from notifier.providers.simulator import NUMBERS
from notifier.rendering import Rendered, Renderer, Template
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import Tokens
from notifier.store.records import Claimed, Guard


@dataclass(frozen=True, slots=True)
class Prepared:
    """A claim and everything a provider needs of it."""

    claim: Claimed
    rendered: Rendered
    sender: str
    reply_to: str | None
    #: Name of the sender identity, for its limits.
    identity: str
    #: What is looked up among the suppressions before a call.
    guard: Guard
    tokens: Tokens
    #: What ends its category; "": it is of none that can be ended.
    unsubscribe_url: str = ""
    #: Files that go with it.
    attachments: tuple[Attachment, ...] = ()

    @property
    def units(self) -> int:
        """What it counts under a rate limit: segments of an SMS, one for a mail."""
        return self.rendered.segments.count if self.rendered.segments else 1

    def outgoing(self, number: int) -> Outgoing:
        """As the `number`-th attempt."""
        return Outgoing(
            notification_id=self.claim.id,
            attempt=number,
            to=self.claim.recipient,
            sender=self.sender,
            text=self.rendered.text,
            subject=self.rendered.subject,
            html=self.rendered.html,
            locale=self.rendered.locale,
            reply_to=self.reply_to,
            return_path=self._return_path(number),
            unsubscribe_url=self.unsubscribe_url or None,
            seconds_to_expiry=self.claim.seconds_to_expiry_now(),
            segments=self.units,
            attachments=self.attachments,
        )

    def _return_path(self, number: int) -> str | None:
        return self.tokens.return_path(self.claim.id, number) if self.claim.channel is Channel.EMAIL else None


def prepare(
    claim: Claimed,
    renderer: Renderer,
    settings: Settings,
    hash_key: HashKey,
    tokens: Tokens,
    files: Mapping[UUID, Attachment] = MappingProxyType({}),
) -> Prepared:
    """Render it and find out who it is from. `files`: those that were found of what goes with it.

    Raises:
        RenderingFailed: the template and this context do not go together.
        Rejected: it may not be sent at all: its country is not allowed, or a file of it is gone.
        Unavailable: something of ours is missing, maybe the key that opens it; it can wait for it.
    """
    if claim.problem is not None:
        raise Unavailable(claim.problem, reason=Reason.NOT_CONFIGURED)
    prefixes = settings.structure.sms_prefixes
    is_simulated = claim.is_test and claim.recipient in NUMBERS
    if claim.channel is Channel.SMS and prefixes and not claim.recipient.startswith(prefixes) and not is_simulated:
        raise Rejected("its number begins with none of sms_prefixes", reason=Reason.COUNTRY_NOT_ALLOWED)
    missing = sum(value not in files for value in claim.attachments)
    if missing:
        detail = (
            f"{missing} of its {len(claim.attachments)} attachments were deleted: upload them and send it anew"
        )
        raise Rejected(detail, reason=Reason.ATTACHMENT_MISSING)
    try:
        template = renderer.template(claim.channel, claim.template)
        url = _unsubscribe_url(claim, template, tokens)
        rendered = renderer.render(claim.channel, claim.template, claim.locale, claim.context, unsubscribe_url=url)
    except (NotFound, TemplateInvalid) as error:
        # It was there when the message was accepted: somebody is about to mend it.
        raise Unavailable(str(error), reason=Reason.TEMPLATE_ERROR) from error
    name = claim.sender or template.sender
    identity = settings.sender(name)
    sender = identity.email if claim.channel is Channel.EMAIL else identity.sms
    if sender is None:
        raise Unavailable(f"no sender identity for {claim.channel}", reason=Reason.NOT_CONFIGURED)
    reply_to = settings.sender(claim.reply_to).email if claim.reply_to else None
    identity_name = settings.sender_name(name)
    guard = guard_of(claim, template, identity_name, hash_key)
    attachments = tuple(files[value] for value in claim.attachments)
    return Prepared(claim, rendered, sender, reply_to, identity_name, guard, tokens, url, attachments)


def _unsubscribe_url(claim: Claimed, template: Template, tokens: Tokens) -> str:
    if template.transactional or template.category is None:
        return ""
    locale = claim.locale or template.default_locale
    return tokens.unsubscribe_url(claim.id, claim.channel, claim.address, template.category, locale)
