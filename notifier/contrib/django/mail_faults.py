"""What keeps one of Django's mails from being a notification: values of a wrong kind, and what none can carry.

Django finds the former when it writes a mail out, and then in errors of Python's (`AttributeError`, `TypeError`)
that name no field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import copy
from email.errors import MessageError
from email.message import Message as MimePart
from email.utils import parseaddr
from typing import Any

from django.conf import settings as project
from django.core.mail import EmailMessage
from django.utils.functional import Promise

from notifier.domain.errors import Fault
from notifier.domain.message import (
    MAX_ATTACHMENTS,
    MAX_MAIL_ATTACHMENTS,
    MAX_PART_LENGTH,
    MAX_SUBJECT_LENGTH,
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

#: Of a file's content, beside text.
BYTES = (bytes, bytearray, memoryview)


def kind_faults(mail: EmailMessage) -> Iterator[Fault]:
    """Values of a wrong kind. Without these, the functions below can read the mail."""
    for name in ("subject", "body", "from_email"):
        if not _is_text(getattr(mail, name)):
            yield Fault(name, "wrong_type", "is not text", "Give text")
        elif not _is_whole(getattr(mail, name)):
            yield _half(name)
    for name in ("to", "cc", "bcc", "reply_to"):
        addresses = getattr(mail, name)
        if not isinstance(addresses, list | tuple):
            yield Fault(name, "wrong_type", "is not a list", "Give a list of addresses")
        elif not all(address is None or _is_text(address) for address in addresses):
            yield Fault(name, "wrong_type", "holds something else than addresses", "Give text for each")
        elif not all(map(_is_whole, addresses)):
            yield _half(name)
    headers = mail.extra_headers
    if not isinstance(headers, Mapping) or not all(isinstance(name, str) for name in headers):
        yield Fault("headers", "wrong_type", "is not a dictionary of text", "Give names and values as text")
    elif not all(map(_is_whole, [*headers, *headers.values()])):
        yield _half("headers")
    for position, alternative in enumerate(getattr(mail, "alternatives", None) or ()):
        yield from _alternative_faults(f"alternatives.{position}", alternative)
    for position, attachment in enumerate(mail.attachments):
        yield from _attachment_faults(f"attachments.{position}", attachment)


def _is_text(value: object) -> bool:
    # A Promise is text that Django translates late.
    return isinstance(value, str | Promise)


def _is_whole(value: object) -> bool:
    """Whether it is text of which every character can be written, or no text."""
    try:
        str(value).encode() if _is_text(value) else None
    except UnicodeEncodeError:
        return False
    return True


def _half(field: str) -> Fault:
    return Fault(field, "bad_utf8", "holds half a character", "Give whole Unicode text")


def _alternative_faults(field: str, alternative: Any) -> Iterator[Fault]:
    if not isinstance(alternative, list | tuple) or len(alternative) != 2:
        yield Fault(field, "wrong_type", "is not content and type", "Use attach_alternative(content, type)")
        return
    content = alternative[0]
    if isinstance(content, bytes):
        try:
            content.decode()
        except UnicodeDecodeError:
            yield Fault(field, "bad_utf8", "is not UTF-8", "Give text")
    elif not _is_text(content):
        yield Fault(field, "wrong_type", "has a content that is not text", "Give text")
    elif not _is_whole(content):
        yield _half(field)


def _attachment_faults(field: str, attachment: Any) -> Iterator[Fault]:
    if isinstance(attachment, MimePart) or (
        isinstance(attachment, list | tuple)
        and len(attachment) > 1
        and isinstance(attachment[1], MimePart | EmailMessage)
    ):
        fix = "Attach it with name, content and type; a picture inside of the HTML needs an address of the web"
        yield Fault(field, "wrong_type", "is a ready part of a mail, or a mail", fix)
        return
    if not isinstance(attachment, list | tuple) or len(attachment) != 3:
        yield Fault(field, "wrong_type", "is not name, content and type", "Use attach(name, content, type)")
        return
    name, content, kind = attachment
    if not isinstance(name, str | None):
        yield Fault(field, "wrong_type", "has a name that is not text", "Give its name as text, or none")
    if not isinstance(content, (str, *BYTES)):
        yield Fault(
            field, "wrong_type", "has a content that is neither text nor bytes", "Give what read() returns"
        )
    if not isinstance(kind, str | None):
        yield Fault(field, "wrong_type", "has a type that is not text", "Give one as application/pdf, or none")
    if not all(map(_is_whole, attachment)):
        yield _half(field)


def faults(mail: EmailMessage, senders: Mapping[str, str]) -> Iterator[Fault]:
    """What of it no notification carries."""
    if mail.content_subtype not in ("plain", "html"):
        yield Fault("content_subtype", "bad_choice", "is neither plain nor html", "Send text or HTML")
    kinds = [kind for _, kind in getattr(mail, "alternatives", None) or ()]
    if any(kind != "text/html" for kind in kinds) or len(kinds) > 1:
        yield Fault(
            "alternatives", "bad_choice", "are more than one part of text/html", "Attach the others as files"
        )
    if identity(sender_of(mail), senders) is None and not _is_default(sender_of(mail)):
        yield _no_identity("from_email")
    addresses = replies_to(mail)
    if len(addresses) > 1:
        yield Fault("reply_to", "too_long", "has more than 1 entries", "Name one")
    if any(bare(address) not in senders for address in addresses):
        yield _no_identity("reply_to")
    for name in mail.extra_headers:
        if name.lower() not in ("from", "reply-to"):
            fix = "Leave it out, or send a template of the service's"
            yield Fault(f"headers.{name}", "unknown_field", "is a header that notifications do not have", fix)
    yield from _total_faults(mail)
    yield from _own_faults(mail)


def length_faults(subject: str, text: str, html: str | None) -> Iterator[Fault]:
    """What the service could not render."""
    # As the service makes it one line.
    line = " ".join(subject.split())
    if len(line) > MAX_SUBJECT_LENGTH:
        problem = f"has {len(line)} characters"
        yield Fault("subject", "too_long", problem, f"Give at most {MAX_SUBJECT_LENGTH}")
    if _CONTROL.search(line):
        yield Fault("subject", "bad_format", "holds control characters", "Leave them out")
    for name, part in (("body", text), ("alternatives.0", html or "")):
        if len(part) > MAX_PART_LENGTH:
            fix = f"Give at most {MAX_PART_LENGTH}, or send a link"
            yield Fault(name, "too_long", f"has {len(part)} characters", fix)


def _total_faults(mail: EmailMessage) -> Iterator[Fault]:
    if len(mail.attachments) > MAX_ATTACHMENTS:
        problem = f"are {len(mail.attachments)} files"
        yield Fault("attachments", "too_long", problem, f"Attach at most {MAX_ATTACHMENTS}, or send links")
    total = sum(len(file_bytes(content)) for _, content, _ in mail.attachments)
    if total > MAX_MAIL_ATTACHMENTS:
        fix = f"Attach at most {MAX_MAIL_ATTACHMENTS} bytes, or send links"
        yield Fault("attachments", "attachments_too_large", f"are {total} bytes together", fix)


def _own_faults(mail: EmailMessage) -> Iterator[Fault]:
    """Django's own checks. A line break in a header, and an address that cannot be written, stay errors of its own
    (`ValueError`)."""
    bare_mail = copy(mail)
    bare_mail.attachments = []  # They are no headers, and encoding them takes long.
    try:
        bare_mail.message()
    except (AttributeError, TypeError, LookupError, UnicodeError, MessageError) as error:
        problem = f"is none that Django can write out ({type(error).__name__})"
        yield Fault("mail", "wrong_type", problem, "Look at its headers, addresses and encoding")


def _no_identity(field: str) -> Fault:
    fix = 'Use DEFAULT_FROM_EMAIL, or name its identity: NOTIFIER_SENDERS = {"help@example.com": "support"}'
    return Fault(field, "unknown_sender", "is the address of no sender identity that NOTIFIER_SENDERS names", fix)


def file_bytes(content: str | bytes | bytearray | memoryview) -> bytes:
    return content.encode() if isinstance(content, str) else bytes(content)


def sender_of(mail: EmailMessage) -> str:
    return str(_header(mail, "from") or mail.from_email)


def replies_to(mail: EmailMessage) -> list[str]:
    given = _header(mail, "reply-to")
    return [str(given)] if given else [str(address) for address in mail.reply_to]


def _header(mail: EmailMessage, name: str) -> Any:
    return next((value for key, value in mail.extra_headers.items() if key.lower() == name), None)


def bare(address: str) -> str:
    return parseaddr(address)[1].lower()


def identity(address: str, senders: Mapping[str, str]) -> str | None:
    """The sender identity of this address; None: the service's default one."""
    return senders.get(bare(address))


def _is_default(address: str) -> bool:
    return bare(address) in {bare(str(project.DEFAULT_FROM_EMAIL)), bare(str(project.SERVER_EMAIL))}
