"""Turns one of Django's mails into messages for the outbox, or lists everything that is wrong with it.

Nothing is written before all mails of a call are checked. Files are uploaded even for a mail that will be refused:
only the service knows which files it accepts, and its faults should be reported together with the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.core.exceptions import SuspiciousOperation
from django.core.mail import EmailMessage
from django.utils.html import strip_tags

from notifier.client.messages import Encoded, MessageEncoder
from notifier.contrib.django import mail_faults
from notifier.contrib.django.mail_files import upload
from notifier.domain.errors import Fault, InvalidMessage
from notifier.domain.recipient_identity import recipient_identity
from notifier.domain.statuses import Channel, Lane

#: The service's template that takes text as it is. The operator decides who may use it.
TEMPLATE = "raw_email"

#: Stands for a file until it is uploaded, so that the message already has its final size.
_NO_ID = UUID(int=0)


class MailDraft:
    """`faults` are those known without the service; `upload_files` adds the service's faults in files."""

    def __init__(self, mail: EmailMessage, senders: Mapping[str, str], encoder: MessageEncoder) -> None:
        self.faults = list(mail_faults.kind_faults(mail))
        self._mail = mail_faults.readable(mail, self.faults)
        self._senders = senders
        self._file_ids: list[UUID] = []
        self._add(mail_faults.faults(self._mail, senders))
        text, html, html_field = self._parts()
        self._add(mail_faults.length_faults(str(self._mail.subject), text, html, html_field))
        self._messages = self._encoded(encoder, text, html, html_field)

    def upload_files(self) -> None:
        """Upload the mail's files. Raises `ConfigurationError` or `ServiceUnavailable`."""
        known = {fault.field for fault in self.faults}
        for position, attachment in enumerate(self._mail.attachments):
            field = f"attachments.{position}"
            if not known & {"attachments", field}:
                try:
                    self._file_ids.append(UUID(upload(field, *attachment)))
                except InvalidMessage as error:
                    self.faults += error.faults

    def messages(self) -> Iterator[Encoded]:
        """One message for each recipient. Call it only if there are no `faults`, and after `upload_files`."""
        for one in self._messages:
            if self._file_ids:
                message = one.message.model_copy(update={"attachments": self._file_ids})
                yield replace(one, message=message, body=message.encode())
            else:
                yield one

    def _add(self, news: Iterable[Fault]) -> None:
        """Add faults, but none for a field that already has one: its value was replaced by something harmless."""
        known = {fault.field for fault in self.faults}
        self.faults += [fault for fault in news if fault.field not in known]

    def _parts(self) -> tuple[str, str | None, str]:
        """The text, the HTML, and the name of the field that holds the HTML. If the mail has only HTML, the text
        is the HTML without its tags."""
        body, html, html_field = str(self._mail.body), None, "body"
        if self._mail.content_subtype == "html":
            html = body
        else:
            for position, (content, kind) in enumerate(mail_faults.alternatives_of(self._mail)):
                if html is None and kind == "text/html":
                    html, html_field = _text_of(content), f"alternatives.{position}"
        text = body
        if html is not None and (html_field == "body" or not body.strip()):
            try:
                text = strip_tags(html)
            except SuspiciousOperation:
                self._add([Fault("body", "bad_format", "is HTML with too many open tags", "Write a text")])
        if not text.strip() and not any(fault.field == html_field for fault in self.faults):
            without = "" if html is None else ", and its HTML has no text either"
            self._add([Fault("body", "too_short", f"is empty{without}", "Write a text")])
        return text, html, html_field

    def _encoded(self, encoder: MessageEncoder, text: str, html: str | None, html_field: str) -> list[Encoded]:
        replies_to = mail_faults.replies_to(self._mail)
        common: dict[str, Any] = {
            "template": TEMPLATE,
            "context": {"subject": str(self._mail.subject), "text": text}
            | ({} if html is None else {"html": html}),
            "sender": mail_faults.identity(mail_faults.sender_of(self._mail), self._senders),
            "reply_to": mail_faults.identity(replies_to[0], self._senders) if replies_to else None,
            "attachments": [_NO_ID] * len(self._mail.attachments) or None,
        }
        places = dict(mail_faults.recipients_of(self._mail))
        self._add(fault for field, to in places.items() for fault in mail_faults.address_faults(field, to))
        # One mail for each person, with the address as it was first spelled.
        firsts: dict[str, str] = {}
        for field, to in places.items():
            firsts.setdefault(recipient_identity(to), field)
        fields = list(firsts.values())
        entries = [common | {"to": places[field]} for field in fields]
        try:
            return encoder.encode_many(entries, Channel.EMAIL, Lane.NORMAL, {})
        except InvalidMessage as error:
            names = {"context.subject": "subject", "context.text": "body", "context.html": html_field}
            found = []
            for fault in error.faults:
                position, _, name = fault.field.partition(".")
                field = fields[int(position)] if name == "to" else names.get(name, name)
                found.append(replace(fault, field=field))
            # A fault that all recipients share is listed once.
            self._add(dict.fromkeys(found))
            return []


def _text_of(content: Any) -> str:
    return content.decode() if isinstance(content, bytes) else str(content)
