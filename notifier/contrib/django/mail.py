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

import mimetypes
from collections.abc import Iterator, Mapping, Sequence
from email.message import Message as MimePart
from email.utils import parseaddr
from typing import Any

from django.conf import settings as project
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.html import strip_tags

from notifier.client.service_requests import upload_file
from notifier.contrib.django.settings import DjangoSettings
from notifier.domain.errors import Fault, InvalidMessage, NotifierError
from notifier.domain.statuses import Channel, Lane

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

        Unless `fail_silently`, all of them are, or none.

        Raises:
            InvalidMessage: `faults` lists everything that is wrong. A `ValueError`, as Django's `BadHeaderError`.
            ConfigurationError: a setting is missing or wrong.
            ServiceUnavailable: an attachment could not be uploaded.
        """
        mails = [mail for mail in email_messages if mail.recipients()]
        if not self.fail_silently:
            self._write(mails)
            return len(mails)
        return sum(map(self._was_written, mails))

    def _was_written(self, mail: EmailMessage) -> bool:
        try:
            self._write([mail])
        except (NotifierError, ValueError):
            return False
        return True

    def _write(self, mails: Sequence[EmailMessage]) -> None:
        # Imported here: models cannot be before Django's apps are.
        from notifier.contrib.django import send_many

        entries = [entry for mail in mails for entry in _entries(mail)]
        if entries:
            send_many(entries, channel=Channel.EMAIL, lane=Lane.NORMAL, template=TEMPLATE)


def _entries(mail: EmailMessage) -> Iterator[dict[str, Any]]:
    """The messages of one mail, one for each recipient."""
    mail.message()  # Django's own checks: no line break in a header, addresses that can be written
    settings = DjangoSettings.read().require("NOTIFIER_PRODUCER", "NOTIFIER_SENDERS")
    faults = list(_faults(mail, settings.senders))
    text, html = _parts(mail)
    if not text.strip():
        faults.append(Fault("body", "too_short", "is empty", "Write a text"))
    if faults:
        raise InvalidMessage(faults)
    common: dict[str, Any] = {
        "context": {"subject": str(mail.subject), "text": text} | ({} if html is None else {"html": html}),
        "sender": _identity(_from(mail), settings.senders),
        "reply_to": next((settings.senders[_bare(address)] for address in _reply_to(mail)), None),
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
    return body, next((_text_of(content) for content, _ in alternatives), None)


def _text_of(content: Any) -> str:
    return content.decode() if isinstance(content, bytes) else str(content)


def _faults(mail: EmailMessage, senders: Mapping[str, str]) -> Iterator[Fault]:
    """What of it no notification carries."""
    if mail.content_subtype not in ("plain", "html"):
        yield Fault("content_subtype", "bad_choice", "is neither plain nor html", "Send text or HTML")
    kinds = [kind for _, kind in getattr(mail, "alternatives", None) or ()]
    if any(kind != "text/html" for kind in kinds) or len(kinds) > 1:
        yield Fault(
            "alternatives", "bad_choice", "are more than one part of text/html", "Attach the others as files"
        )
    if _identity(_from(mail), senders) is None and not _is_default(_from(mail)):
        yield _no_identity("from_email")
    addresses = _reply_to(mail)
    if len(addresses) > 1:
        yield Fault("reply_to", "too_long", "has more than 1 entries", "Name one")
    if any(_bare(address) not in senders for address in addresses):
        yield _no_identity("reply_to")
    for name in mail.extra_headers:
        if name.lower() not in ("from", "reply-to"):
            fix = "Leave it out, or send a template of the service's"
            yield Fault(f"headers.{name}", "unknown_field", "is a header that notifications do not have", fix)
    for position, attachment in enumerate(mail.attachments):
        if isinstance(attachment, MimePart) or not isinstance(attachment[1], str | bytes):
            fix = "Attach it with name, content and type; a picture inside of the HTML needs an address of the web"
            yield Fault(f"attachments.{position}", "wrong_type", "is a ready part of a mail", fix)


def _no_identity(field: str) -> Fault:
    fix = 'Use DEFAULT_FROM_EMAIL, or name its identity: NOTIFIER_SENDERS = {"help@example.com": "support"}'
    return Fault(field, "unknown_sender", "is the address of no sender identity that NOTIFIER_SENDERS names", fix)


def _from(mail: EmailMessage) -> str:
    return str(_header(mail, "from") or mail.from_email)


def _reply_to(mail: EmailMessage) -> list[str]:
    given = _header(mail, "reply-to")
    return [str(given)] if given else [str(address) for address in mail.reply_to]


def _header(mail: EmailMessage, name: str) -> Any:
    return next((value for key, value in mail.extra_headers.items() if key.lower() == name), None)


def _bare(address: str) -> str:
    return parseaddr(address)[1].lower()


def _identity(address: str, senders: Mapping[str, str]) -> str | None:
    """The sender identity of this address; None: the service's default one."""
    return senders.get(_bare(address))


def _is_default(address: str) -> bool:
    return _bare(address) in {_bare(str(project.DEFAULT_FROM_EMAIL)), _bare(str(project.SERVER_EMAIL))}


def _upload(mail: EmailMessage) -> list[str]:
    """Ids of the mail's files, in its order."""
    if not mail.attachments:
        return []
    # Imported here: models cannot be before Django's apps are.
    from notifier.contrib.django.sending import service_api

    api = service_api()
    return [api.run(upload_file(*_file(*attachment))) for attachment in mail.attachments]


def _file(name: str | None, content: str | bytes, kind: str | None) -> tuple[str, bytes, str]:
    kind = kind or mimetypes.guess_type(name or "")[0] or "application/octet-stream"
    body = content if isinstance(content, bytes) else content.encode()
    name = name or f"attachment{mimetypes.guess_extension(kind) or ''}"
    if isinstance(content, str) and kind.startswith("text/") and "charset" not in kind:
        kind += "; charset=utf-8"
    return name, body, kind
