"""Django's mail through the service: `send_mail`, password resets, `mail_admins` and every app's own mails.

    EMAIL_BACKEND = "notifier.contrib.django.mail.EmailBackend"
    MAILERS = {"default": {"BACKEND": "notifier.contrib.django.mail.EmailBackend"}}  # from Django 6.1 on

Each recipient gets a mail of its own, made of the template `raw_email` with the subject, text and HTML given.
Mails become rows of the outbox in the current transaction, as with `notifier.contrib.django.send`: one that is
rolled back is not sent.

What a notification cannot carry (headers, an address to reply to that is no sender identity, pictures inside of
the HTML) is refused rather than left out. Whoever needs more of the service calls `send` with a template.

Crash points: none of its own. A file that was uploaded for a mail that is not committed is deleted after a day.
"""

from __future__ import annotations

import logging
import mimetypes
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.html import strip_tags

from notifier.client.service_requests import upload_file
from notifier.contrib.django import mail_faults
from notifier.contrib.django.settings import DjangoSettings
from notifier.domain.errors import Fault, InvalidMessage, NotifierError
from notifier.domain.statuses import Channel, Lane

log = logging.getLogger("notifier.contrib.django.mail")

#: The service's template that takes text as it is; its operator decides who may use it.
TEMPLATE = "raw_email"


class EmailBackend(BaseEmailBackend):  # type: ignore[misc]  # Django ships no types
    """Writes Django's mails into the outbox of notifier."""

    def __init__(self, fail_silently: bool = False, *, alias: str | None = None, **options: Any) -> None:
        """`alias` and `options` come from MAILERS (Django 6.1), which refuses options that are not known. What
        `send_mail` passes on without it, user and password of a mail server, is not needed."""
        super().__init__(**({} if alias is None else {"alias": alias, **options}))
        self.fail_silently = fail_silently

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """The number of mails that were written into the outbox, whatever the number of their recipients.

        Unless `fail_silently`, all of them are, or none. With it, one that raises any of these is left out, not
        counted, and named in the log. Errors of the database are raised all the same: the transaction is broken.

        Raises:
            InvalidMessage: `faults` lists everything that is wrong. A `ValueError`, as Django's `BadHeaderError`.
            ConfigurationError: a setting is missing or wrong, or the service refuses the key.
            ServiceUnavailable: an attachment could not be uploaded.
        """
        mails = [mail for mail in email_messages if _has_recipients(mail)]
        if not self.fail_silently:
            self._write(mails)
            return len(mails)
        return sum(map(self._was_written, mails))

    def _was_written(self, mail: EmailMessage) -> bool:
        try:
            self._write([mail])
        except (NotifierError, ValueError) as error:
            log.warning("a mail was left out, as it may fail silently: %s", _without_values(error))
            return False
        return True

    def _write(self, mails: Sequence[EmailMessage]) -> None:
        # Imported here: models cannot be before Django's apps are.
        from notifier.contrib.django import send_many

        entries = [entry for mail in mails for entry in _entries(mail)]
        if entries:
            send_many(entries, channel=Channel.EMAIL, lane=Lane.NORMAL, template=TEMPLATE)


def _has_recipients(mail: EmailMessage) -> bool:
    """Also where that cannot be told, and the mail will be refused."""
    try:
        return bool(mail.recipients())
    except TypeError:
        return True


def _without_values(error: Exception) -> str:
    """What it says, without what a mail holds: Django's own errors repeat subjects and addresses."""
    return str(error) if isinstance(error, NotifierError) else type(error).__name__


def _entries(mail: EmailMessage) -> Iterator[dict[str, Any]]:
    """The messages of one mail, one for each recipient."""
    settings = DjangoSettings.read().require("NOTIFIER_PRODUCER", "NOTIFIER_SENDERS")
    faults = list(mail_faults.kind_faults(mail))
    if faults:
        raise InvalidMessage(faults)
    faults = list(mail_faults.faults(mail, settings.senders))
    text, html = _parts(mail)
    if not text.strip():
        without = "" if html is None else ", and its HTML has no text either"
        faults.append(Fault("body", "too_short", f"is empty{without}", "Write a text"))
    faults += mail_faults.length_faults(str(mail.subject), text, html)
    if faults:
        raise InvalidMessage(faults)
    replies_to = mail_faults.replies_to(mail)
    common: dict[str, Any] = {
        "context": {"subject": str(mail.subject), "text": text} | ({} if html is None else {"html": html}),
        "sender": mail_faults.identity(mail_faults.sender_of(mail), settings.senders),
        "reply_to": mail_faults.identity(replies_to[0], settings.senders) if replies_to else None,
        "attachments": _upload(mail) or None,
    }
    for recipient in dict.fromkeys(mail.recipients()):
        yield common | {"to": str(recipient)}


def _parts(mail: EmailMessage) -> tuple[str, str | None]:
    """Text and HTML; of a mail of HTML alone, the text is what is left without the tags."""
    body = str(mail.body)
    if mail.content_subtype == "html":
        return strip_tags(body), body
    alternatives = getattr(mail, "alternatives", None) or ()
    html = next((_text_of(content) for content, _ in alternatives), None)
    return body if body.strip() or html is None else strip_tags(html), html


def _text_of(content: Any) -> str:
    return content.decode() if isinstance(content, bytes) else str(content)


def _upload(mail: EmailMessage) -> list[str]:
    """Ids of the mail's files, in its order."""
    if not mail.attachments:
        return []
    # Imported here: models cannot be before Django's apps are.
    from notifier.contrib.django.sending import service_api

    api = service_api()
    ids = []
    for position, (name, content, kind) in enumerate(mail.attachments):
        try:
            ids.append(api.run(upload_file(*_file(name, content, kind))))
        except InvalidMessage as error:
            field = f"attachments.{position}"
            faults = [Fault(field, one.code, one.problem, one.fix) for one in error.faults]
            raise InvalidMessage(faults) from None
    return ids


def _file(name: str | None, content: str | bytes, kind: str | None) -> tuple[str, bytes, str]:
    kind = kind or mimetypes.guess_type(name or "")[0] or "application/octet-stream"
    name = name or f"attachment{mimetypes.guess_extension(kind) or ''}"
    if isinstance(content, str) and kind.startswith("text/") and "charset" not in kind:
        kind += "; charset=utf-8"
    return name, mail_faults.file_bytes(content), kind
