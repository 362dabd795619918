"""Turns an `Outgoing` into the bytes of a mail.

It is a composer of our own, because the standard library's generator takes a millisecond or more for each mail,
several times as long as the whole SMTP dialogue. Its output is tested against the standard library's parser. The
output depends only on the arguments, so a second attempt has the same Message-ID, boundary and body.
"""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from notifier.domain.record import record
from notifier.providers.base import Attachment, Outgoing
from notifier.providers.mail.address import Mailbox
from notifier.providers.smtp import headers as mime_header

_ASCII = bytes(range(128))
#: RFC 5322 section 2.1.1: the length that every server takes. The recommended 78 is for people who read the
#: source.
_MAX_LINE = 998
#: Printable ASCII, tabs, and line ends.
_PLAIN = bytes(range(0x20, 0x7F)) + b"\t\r\n"
#: Bytes of characters that are not ASCII.
_HIGH = bytes(range(0x80, 0x100))
#: RFC 2045 section 6.8.
_BASE64_LINE = 76
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")
_NEWLINES = re.compile(r"\r\n?|\n")


@record(frozen=True, slots=True)
class Mail:
    """A mail and its envelope."""

    mail_from: str
    rcpt_to: str
    #: The whole message, with CRLF at the end of every line, not dot-stuffed.
    content: bytes
    message_id: str
    #: Whether an address needs SMTPUTF8 (RFC 6531).
    needs_smtputf8: bool
    #: Our addresses in the mail: an answer that names one of them is about the sender.
    ours: tuple[str, ...] = ()
    #: Whether it can only go to a server with 8BITMIME (RFC 6152).
    needs_8bit: bool = False


@record(frozen=True, slots=True)
class Correspondents:
    sender: Mailbox
    to: Mailbox
    reply_to: Mailbox | None = None

    @property
    def needs_smtputf8(self) -> bool:
        is_in_reply_to = self.reply_to is not None and self.reply_to.needs_smtputf8
        return self.sender.needs_smtputf8 or self.to.needs_smtputf8 or is_in_reply_to


def compose(
    outgoing: Outgoing, who: Correspondents, *, domain: str, date: datetime, takes_8bit: bool = False
) -> Mail:
    """Compose the mail.

    Args:
        outgoing: Subject, texts, locale and id; its address fields are not read.
        who: The parsed addresses.
        domain: Domain of the Message-ID, ASCII.
        date: For the header Date, aware.
        takes_8bit: Whether text in other scripts may stay unencoded, because the server has 8BITMIME.
    """
    message_id = f"<{outgoing.notification_id}@{domain}>"
    headers = "\r\n".join(_headers(outgoing, who, message_id, _date(int(date.timestamp()))))
    body = _mixed(outgoing, takes_8bit) if outgoing.attachments else _body(outgoing, takes_8bit)
    return Mail(
        mail_from=outgoing.return_path or who.sender.address,
        rcpt_to=who.to.address,
        content=headers.encode("utf-8") + b"\r\n" + body,
        message_id=message_id,
        needs_smtputf8=who.needs_smtputf8,
        ours=tuple(filter(None, (who.sender.address, outgoing.return_path))),
        needs_8bit=not body.isascii(),
    )


@lru_cache(maxsize=16)
def _date(timestamp: int) -> str:
    """Cached, because many mails share a second, and writing the date takes as long as all other headers."""
    return format_datetime(datetime.fromtimestamp(timestamp, UTC))


def _headers(outgoing: Outgoing, who: Correspondents, message_id: str, date: str) -> list[str]:
    headers = [
        f"Date: {date}",
        mime_header.address("From", who.sender),
        mime_header.address("To", who.to),
        mime_header.unstructured("Subject", mime_header.clean(outgoing.subject)),
        f"Message-ID: {message_id}",
        # RFC 3834 section 5: prevents out-of-office replies and mail loops.
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
    ]
    if who.reply_to:
        headers.append(mime_header.address("Reply-To", who.reply_to))
    if outgoing.unsubscribe_url:
        # RFC 8058: both, so that a mail program can offer unsubscribing with one click.
        headers.append(f"List-Unsubscribe: <{outgoing.unsubscribe_url}>")
        headers.append("List-Unsubscribe-Post: List-Unsubscribe=One-Click")
    if _LANGUAGE.fullmatch(outgoing.locale) and outgoing.locale != "und":
        headers.append(f"Content-Language: {outgoing.locale}")
    return headers


def _body(outgoing: Outgoing, takes_8bit: bool) -> bytes:
    text = _part(b"plain", outgoing.text, takes_8bit)
    if outgoing.html is None:
        return text
    # RFC 2045 section 6.7: "=_" occurs in no quoted-printable or base64 body. `_may_travel_as_it_is` keeps it out
    # of plain ones.
    boundary = b"=_" + outgoing.notification_id.hex.encode("ascii")
    html = _part(b"html", outgoing.html, takes_8bit)
    return b"".join(
        (
            b'Content-Type: multipart/alternative; boundary="' + boundary + b'"\r\n',
            _encoding_around(text, html),
            b"--" + boundary + b"\r\n" + text + b"\r\n",
            b"--" + boundary + b"\r\n" + html + b"\r\n",
            b"--" + boundary + b"--\r\n",
        )
    )


def _encoding_around(*parts: bytes) -> bytes:
    """The last header of a multipart (RFC 2045 section 6.4) and the empty line after it."""
    return b"\r\n" if all(map(bytes.isascii, parts)) else b"Content-Transfer-Encoding: 8bit\r\n\r\n"


def _mixed(outgoing: Outgoing, takes_8bit: bool) -> bytes:
    """The body, followed by the files."""
    # As above. The letter distinguishes it from the boundary of the alternatives inside.
    boundary = b"=_m" + outgoing.notification_id.hex.encode("ascii")
    body = _body(outgoing, takes_8bit)
    parts = [
        b'Content-Type: multipart/mixed;\r\n boundary="' + boundary + b'"\r\n',
        _encoding_around(body),
    ]
    for part in (body, *map(_file, outgoing.attachments)):
        parts += (b"--", boundary, b"\r\n", part, b"\r\n")
    parts += (b"--", boundary, b"--\r\n")
    return b"".join(parts)


def _file(attachment: Attachment) -> bytes:
    disposition = mime_header.parameter("Content-Disposition: attachment", "filename", attachment.name)
    headers = (
        f"Content-Type: {attachment.content_type}\r\nContent-Transfer-Encoding: base64\r\n{disposition}\r\n\r\n"
    )
    return headers.encode("ascii") + _base64(attachment.content)


def _base64(data: bytes) -> bytes:
    # Three times as fast as `encodebytes`, which makes one call for each line.
    encoded = b2a_base64(data, newline=False)
    lines = [encoded[start : start + _BASE64_LINE] for start in range(0, len(encoded), _BASE64_LINE)]
    return b"\r\n".join(lines) + b"\r\n"


def _part(subtype: bytes, text: str, takes_8bit: bool) -> bytes:
    """Headers, an empty line and the encoded text, which always ends with a line break."""
    encoding, content = _encode(canonical(text), takes_8bit)
    return b"".join(
        (
            b"Content-Type: text/" + subtype + b"; charset=utf-8\r\n",
            b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n",
            content,
        )
    )


def canonical(text: str) -> str:
    """The text with CRLF at the end of every line, including the last."""
    lines = _NEWLINES.sub("\r\n", text) if "\r" in text else text.replace("\n", "\r\n")
    return lines if lines.endswith("\r\n") else lines + "\r\n"


def _may_travel_as_it_is(data: bytes) -> bool:
    """Whether these printable lines need no encoding: relays take lines of this length, and no line ends with
    white space, which relays strip. Text with "=_" is always encoded, so that no line of a body looks like our
    boundary."""
    # Searching for one byte takes a fraction of the time of searching for two.
    has_our_mark = b"_" in data and b"=_" in data
    if has_our_mark or b" \r\n" in data or (b"\t" in data and b"\t\r\n" in data):
        return False
    return len(data) <= _MAX_LINE or max(map(len, data.split(b"\r\n"))) <= _MAX_LINE


def _encode(text: str, takes_8bit: bool) -> tuple[bytes, bytes]:
    # A lone surrogate, which JSON allows, has no UTF-8 form; it becomes "?" instead of an error.
    data = text.encode("utf-8", "replace")
    rest = data.translate(None, _PLAIN)
    if not rest and _may_travel_as_it_is(data):
        return b"7bit", data
    if rest and takes_8bit and not rest.translate(None, _HIGH) and _may_travel_as_it_is(data):
        return b"8bit", data
    # Quoted-printable adds two characters for each such byte, base64 adds a third of everything.
    if len(rest.translate(None, _ASCII)) * 6 <= len(data):
        return b"quoted-printable", b2a_qp(data, istext=True)
    return b"base64", _base64(data)
