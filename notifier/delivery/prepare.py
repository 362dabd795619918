"""Renders a notification and finds the sender identities that it uses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from uuid import UUID

from notifier.config.settings import Settings
from notifier.delivery.suppression import guard_of
from notifier.domain.errors import NotFound, Rejected, RenderingFailed, TemplateInvalid, Unavailable
from notifier.domain.record import record
from notifier.domain.statuses import Channel, Reason
from notifier.providers.base import Attachment, Outgoing
from notifier.providers.simulator import NUMBERS
from notifier.rendering import Rendered, Renderer, Template
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import Tokens
from notifier.store.attachments import AttachmentRepository
from notifier.store.records import Guard, NotificationToSend, Unknown


@record(frozen=True, slots=True)
class Prepared:
    """A notification and everything that a provider needs to send it."""

    notification: NotificationToSend
    rendered: Rendered
    sender: str
    reply_to: str | None
    #: Name of the sender identity.
    identity: str
    #: What the statement that starts an attempt looks up among the suppressions.
    guard: Guard
    tokens: Tokens
    #: Empty: recipients cannot unsubscribe from this mail.
    unsubscribe_url: str = ""
    attachments: tuple[Attachment, ...] = ()

    @property
    def units(self) -> int:
        """How much it counts under a rate limit: the segments of an SMS, 1 for a mail."""
        return self.rendered.segments.count if self.rendered.segments else 1

    def outgoing(self, number: int) -> Outgoing:
        is_mail = self.notification.channel is Channel.EMAIL
        return Outgoing(
            notification_id=self.notification.id,
            attempt=number,
            to=self.notification.recipient,
            sender=self.sender,
            text=self.rendered.text,
            subject=self.rendered.subject,
            html=self.rendered.html,
            locale=self.rendered.locale,
            reply_to=self.reply_to,
            return_path=self.tokens.return_path(self.notification.id, number) if is_mail else None,
            unsubscribe_url=self.unsubscribe_url or None,
            seconds_to_expiry=self.notification.seconds_to_expiry_now(),
            segments=self.units,
            attachments=self.attachments,
        )


@record(frozen=True, slots=True)
class SentContent:
    """What an attempt sent, rendered again with the template of today."""

    text: str
    sender: str
    #: False: the template has changed since, so the text may have been another.
    is_same_version: bool


class Composer:
    """Renders notifications and finds their senders. Thread-safe."""

    def __init__(
        self,
        renderer: Renderer,
        settings: Settings,
        hash_key: HashKey,
        tokens: Tokens,
        attachments: AttachmentRepository,
    ) -> None:
        self.attachments = attachments
        self._renderer = renderer
        self._settings = settings
        self._hash_key = hash_key
        self._tokens = tokens
        # Bounded, because names come from messages.
        self._sender_of = lru_cache(maxsize=256)(settings.sender)

    def prepare(self, notification: NotificationToSend, files: Mapping[UUID, Attachment]) -> Prepared:
        """Render it and find its sender. `files`: those of its attachments that exist.

        Raises:
            RenderingFailed: the template cannot be rendered with this context.
            Rejected: it may not be sent at all: its country is not allowed, or one of its files was deleted.
            Unavailable: something of ours is missing, such as the key that decrypts it; it can wait for that.
        """
        if notification.problem is not None:
            raise Unavailable(notification.problem, reason=Reason.NOT_CONFIGURED)
        self._check_country(notification)
        attachments = _attachments(notification, files)
        template, rendered, url = self._render(notification)
        name = notification.sender or template.sender
        identity = self._settings.sender_name(name)
        return Prepared(
            notification,
            rendered,
            sender=self._sender(notification, name),
            reply_to=self._sender_of(notification.reply_to).email if notification.reply_to else None,
            identity=identity,
            guard=guard_of(notification, template, identity, self._hash_key),
            tokens=self._tokens,
            unsubscribe_url=url,
            attachments=attachments,
        )

    def sent_content(self, attempt: Unknown) -> SentContent | None:
        """None: it can no longer be told. Its template is gone, or does not render it any more."""
        try:
            template, rendered, _ = self._render(attempt)
            sender = attempt.sender_address or self._sender(attempt, attempt.sender or template.sender)
        except (RenderingFailed, Unavailable):
            return None
        return SentContent(rendered.text, sender, attempt.template_version in (None, rendered.version))

    def _check_country(self, notification: NotificationToSend) -> None:
        prefixes = self._settings.structure.sms_prefixes
        if notification.channel is not Channel.SMS or not prefixes or notification.recipient.startswith(prefixes):
            return
        if notification.is_test and notification.recipient in NUMBERS:
            return  # the simulator's own numbers
        raise Rejected("its number begins with none of sms_prefixes", reason=Reason.COUNTRY_NOT_ALLOWED)

    def _render(self, notification: NotificationToSend | Unknown) -> tuple[Template, Rendered, str]:
        """The template, the text, and the unsubscribe URL."""
        try:
            template = self._renderer.template(notification.channel, notification.template)
            url = self._unsubscribe_url(notification, template)
            rendered = self._renderer.render(
                notification.channel,
                notification.template,
                notification.locale,
                notification.context,
                unsubscribe_url=url,
            )
        except (NotFound, TemplateInvalid) as error:
            # The template existed when the message was accepted, so somebody is probably about to fix it.
            raise Unavailable(str(error), reason=Reason.TEMPLATE_ERROR) from error
        return template, rendered, url

    def _unsubscribe_url(self, notification: NotificationToSend | Unknown, template: Template) -> str:
        if template.transactional or template.category is None:
            return ""
        locale = notification.locale or template.default_locale
        identity = self._settings.sender_name(notification.sender or template.sender)
        return self._tokens.unsubscribe_url(
            notification.id, notification.channel, notification.address, template.category, locale, identity
        )

    def _sender(self, notification: NotificationToSend | Unknown, name: str | None) -> str:
        identity = self._sender_of(name)
        sender = identity.email if notification.channel is Channel.EMAIL else identity.sms
        if sender is None:
            raise Unavailable(f"no sender identity for {notification.channel}", reason=Reason.NOT_CONFIGURED)
        return sender


def _attachments(notification: NotificationToSend, files: Mapping[UUID, Attachment]) -> tuple[Attachment, ...]:
    missing = sum(value not in files for value in notification.attachments)
    if missing:
        count = len(notification.attachments)
        detail = f"{missing} of its {count} attachments were deleted: upload them and send it again"
        raise Rejected(detail, reason=Reason.ATTACHMENT_MISSING)
    return tuple(files[value] for value in notification.attachments)
