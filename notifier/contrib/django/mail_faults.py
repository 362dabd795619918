"""Finds what keeps one of Django's mails from becoming a notification: values of the wrong type, and content that
no notification can carry.

Django finds wrong types only when it serializes a mail, and then raises Python's own errors (`AttributeError`,
`TypeError`), which name no field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from email.errors import MessageError
from email.message import Message as MimePart
from email.utils import parseaddr
from typing import Any

from django.conf import settings as project
from django.core.mail import EmailAlternative, EmailMessage
from django.utils.functional import Promise

from notifier.domain.errors import Fault
from notifier.domain.message import (
    MAX_ATTACHMENTS,
    MAX_MAIL_ATTACHMENTS,
    MAX_PART_LENGTH,
    MAX_SUBJECT_LENGTH,
)
from notifier.domain.recipient_identity import recipient_faults
from notifier.domain.statuses import Channel

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

#: Valid values of a header.
_HEADER = re.compile("[!-~](?:[ -~]*[!-~])?")
#: Maximum length of a file's name and of its type, each. The service never takes more, and servers read far less.
#: Bytes.
_MAX_PART_OF_HEADER = 255
_TYPE_FIX = "Give one as application/pdf, or none"

#: Types of a file's content, besides text.
BYTES = (bytes, bytearray, memoryview)
#: Takes the place of an entry of the wrong type; for addresses that is None.
_HARMLESS = {"alternatives": EmailAlternative("", "text/html"), "attachments": ("a", b"", "text/plain")}


def kind_faults(mail: EmailMessage) -> Iterator[Fault]:
    """Values of the wrong type. If there are any, only `readable` can be checked further."""
    for name in ("subject", "body", "from_email"):
        if not _is_text(getattr(mail, name)):
            yield Fault(name, "wrong_type", "is not text", "Give text")
        elif not _is_whole(getattr(mail, name)):
            yield _half(name)
    for name in ("to", "cc", "bcc", "reply_to"):
        addresses = getattr(mail, name)
        if not isinstance(addresses, list | tuple):
            yield Fault(name, "wrong_type", "is not a list", "Give a list of addresses")
            continue
        for position, address in enumerate(addresses):
            if address is not None and not _is_text(address):
                yield Fault(f"{name}.{position}", "wrong_type", "is not text", "Give an address as text")
            elif not _is_whole(address):
                yield _half(f"{name}.{position}")
    headers = mail.extra_headers
    if not isinstance(headers, Mapping) or not all(isinstance(name, str) for name in headers):
        yield Fault("headers", "wrong_type", "is not a dictionary of text", "Give names and values as text")
    elif not all(map(_is_whole, [*headers, *headers.values()])):
        yield _half("headers")
    for position, alternative in enumerate(alternatives_of(mail)):
        yield from _alternative_faults(f"alternatives.{position}", alternative)
    for position, attachment in enumerate(mail.attachments):
        yield from _attachment_faults(f"attachments.{position}", attachment)


def readable(mail: EmailMessage, faults: Iterable[Fault]) -> EmailMessage:
    """A copy with something harmless in place of every value of the wrong type."""
    found = copy(mail)
    for fault in faults:
        name, _, position = fault.field.partition(".")
        if name == "headers":
            found.extra_headers = {}
        elif not position:
            is_text = name in ("subject", "body", "from_email")
            setattr(found, name, "" if is_text else [])
        else:
            values = list(getattr(found, name))
            values[int(position)] = _HARMLESS.get(name)
            setattr(found, name, values)
    if not found.from_email:
        found.from_email = project.DEFAULT_FROM_EMAIL
    return found


def _is_text(value: object) -> bool:
    # A `Promise` is text that Django translates later.
    return isinstance(value, str | Promise)


def _is_whole(value: object) -> bool:
    """False if it is text with characters that cannot be encoded."""
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
    elif name and _is_whole(name) and len(name.encode()) > _MAX_PART_OF_HEADER:
        yield bad_name(field)
    if not isinstance(content, (str, *BYTES)):
        yield Fault(
            field, "wrong_type", "has a content that is neither text nor bytes", "Give what read() returns"
        )
    if not isinstance(kind, str | None):
        yield Fault(field, "wrong_type", "has a type that is not text", _TYPE_FIX)
    elif kind and (len(kind) > _MAX_PART_OF_HEADER or not _HEADER.fullmatch(kind)) and _is_whole(kind):
        yield Fault(field, "bad_format", "has a type that no header can hold", _TYPE_FIX)
    if not all(map(_is_whole, attachment)):
        yield _half(field)


def faults(mail: EmailMessage, senders: Mapping[str, str]) -> Iterator[Fault]:
    """What in the mail no notification can carry."""
    if mail.content_subtype not in ("plain", "html"):
        yield Fault("content_subtype", "bad_choice", "is neither plain nor html", "Send text or HTML")
    has_html = mail.content_subtype == "html"
    for position, (_, kind) in enumerate(alternatives_of(mail)):
        if kind != "text/html":
            fix = "Leave it out, or attach it as a file"
            yield Fault(f"alternatives.{position}", "bad_choice", "is not of the type text/html", fix)
        elif has_html:
            fix = "Give one, or attach it as a file"
            yield Fault(f"alternatives.{position}", "bad_choice", "is a second part of text/html", fix)
        has_html = has_html or kind == "text/html"
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
    yield from _own_faults(mail, senders)


def address_faults(field: str, address: str) -> Iterator[Fault]:
    yield from recipient_faults(address, Channel.EMAIL, field)


def length_faults(subject: str, text: str, html: str | None, html_field: str) -> Iterator[Fault]:
    """Content that is too long for the service to render."""
    # The service joins the subject into one line in the same way.
    line = " ".join(subject.split())
    if len(line) > MAX_SUBJECT_LENGTH:
        problem = f"has {len(line)} characters"
        yield Fault("subject", "too_long", problem, f"Give at most {MAX_SUBJECT_LENGTH}")
    if _CONTROL.search(line):
        yield Fault("subject", "bad_format", "holds control characters", "Leave them out")
    for name, part in (("body", text), (html_field, html or "")):
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


def _own_faults(mail: EmailMessage, senders: Mapping[str, str]) -> Iterator[Fault]:
    """Django's own checks. A line break in a header stays a separate error (`ValueError`).

    Values that are already checked here, such as addresses, are not passed to Django, unless they have a line
    break.
    """
    bare_mail = copy(mail)
    bare_mail.attachments = []  # Attachments are not headers, and encoding them takes long.
    for name in ("to", "cc", "reply_to"):
        setattr(bare_mail, name, [address for address in getattr(mail, name) if _is_broken(address)])
    if identity(mail.from_email, senders) is None and not _is_broken(mail.from_email):
        bare_mail.from_email = project.DEFAULT_FROM_EMAIL
    bare_mail.extra_headers = {name: value for name, value in mail.extra_headers.items() if _is_broken(value)}
    if alternatives_of(mail):
        bare_mail.alternatives = [one for one in alternatives_of(mail) if one[1] == "text/html"]
    try:
        bare_mail.message()
    except (AttributeError, TypeError, LookupError, UnicodeError, MessageError) as error:
        problem = f"is none that Django can write out ({type(error).__name__})"
        yield Fault("mail", "wrong_type", problem, "Look at its headers, addresses and encoding")


def _is_broken(value: object) -> bool:
    """Whether it has a line break, which would begin another header."""
    return any(end in str(value) for end in "\r\n")


def bad_name(field: str) -> Fault:
    fix = 'Give a short one without / \\ : * ? " < > |, as invoice.pdf'
    return Fault(field, "bad_file_name", "has a file name that not every mail program can keep", fix)


def _no_identity(field: str) -> Fault:
    fix = 'Use DEFAULT_FROM_EMAIL, or name its identity: NOTIFIER_SENDERS = {"help@example.com": "support"}'
    return Fault(field, "unknown_sender", "is the address of no sender identity that NOTIFIER_SENDERS names", fix)


def file_bytes(content: str | bytes | bytearray | memoryview) -> bytes:
    return content.encode() if isinstance(content, str) else bytes(content)


def alternatives_of(mail: EmailMessage) -> Sequence[Any]:
    return getattr(mail, "alternatives", None) or ()


def recipients_of(mail: EmailMessage) -> Iterator[tuple[str, str]]:
    """Field and address of everybody in `recipients()`: a subclass in the project may leave some out or add
    some."""
    fields: dict[str, list[str]] = {}
    for name in ("to", "cc", "bcc"):
        for position, address in enumerate(getattr(mail, name)):
            fields.setdefault(str(address), []).append(f"{name}.{position}")
    for position, address in enumerate(mail.recipients()):
        places = fields.get(str(address))
        yield places.pop(0) if places else f"recipients.{position}", str(address)


def sender_of(mail: EmailMessage) -> str:
    return str(_header(mail, "from") or mail.from_email)


def replies_to(mail: EmailMessage) -> list[str]:
    given = _header(mail, "reply-to")
    return [str(given)] if given else [str(address) for address in mail.reply_to if address]


def _header(mail: EmailMessage, name: str) -> Any:
    return next((value for key, value in mail.extra_headers.items() if key.lower() == name), None)


def bare(address: str) -> str:
    return parseaddr(address)[1].lower()


def identity(address: str, senders: Mapping[str, str]) -> str | None:
    """The sender identity for this address; None: the service's default identity."""
    return senders.get(bare(address))


def _is_default(address: str) -> bool:
    return bare(address) in {bare(str(project.DEFAULT_FROM_EMAIL)), bare(str(project.SERVER_EMAIL))}
