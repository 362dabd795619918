"""Reads the parts, texts and fields of a mail, as far as possible even if it follows no standard."""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterator
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesFeedParser, BytesHeaderParser
from email.policy import compat32
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

#: Bytes read from the start of a mail, and again from a report further down.
MAX_READ = 256 * 1024
#: Maximum number of parts of a mail, and of groups of fields in a report.
MAX_PARTS = 100
#: Maximum length of a text. Characters.
MAX_TEXT = 64 * 1024
#: Maximum bytes that are searched for headers.
_MAX_HEAD = 64 * 1024
#: Maximum characters of a header field that are read, and maximum parameters.
_MAX_VALUE, _MAX_PARAMETERS = 2000, 20
#: The parser compares every line with the boundary of each open part.
_MAX_OPEN = 20

#: Kept as one text, because the standard library's parser splits them into mails and stops at the first odd line.
_REPORTS = {
    "message/delivery-status": "text/delivery-status",
    "message/global-delivery-status": "text/delivery-status",
    "message/feedback-report": "text/feedback-report",
    "message/disposition-notification": "text/disposition-notification",
    "message/global-disposition-notification": "text/disposition-notification",
}
_LATE_REPORT = re.compile(
    rb"^content-type[ \t]{0,9}:\s{0,99}message/(?:global-)?(?:delivery-status|feedback-report)",
    re.IGNORECASE | re.MULTILINE,
)
_LINE_END = re.compile(rb"\r+\n?")
_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,60})[ \t]*:[ \t]*(.*)")
_UNSEEN = re.compile(r"<(/?)(?:style|script)\b", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,2000}>")
_BREAK = re.compile(r"<(?:br|/p|/div|/tr|/li|/h\d)\b[^<>]{0,200}>", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{16,}={0,2}")
#: Fields of RFC 3464. A line that begins with another word continues the previous field.
_STATUS_FIELDS = frozenset(
    {
        "original-envelope-id",
        "reporting-mta",
        "dsn-gateway",
        "received-from-mta",
        "arrival-date",
        "original-recipient",
        "final-recipient",
        "action",
        "status",
        "remote-mta",
        "diagnostic-code",
        "last-attempt-date",
        "final-log-id",
        "will-retry-until",
        "localized-diagnostic",
    }
)
#: Charsets whose bytes look like ASCII but mean something else.
_NOT_ASCII = ("iso-2022", "hz", "utf-7", "utf-16", "utf-32")

#: Name in lower case → value.
Fields = dict[str, str]


class Bounded(Message):
    """A mail, or a part of one, that takes linear time to read, whatever it contains."""

    #: Beyond `_MAX_OPEN`: its parts are not read.
    is_closed = False

    def get(self, name: str, failobj: Any = None) -> Any:
        """Overridden because the standard library's parser takes quadratic time for a field's parameters."""
        value = super().get(name, failobj)
        if isinstance(value, str):
            return ";".join(value[:_MAX_VALUE].split(";", _MAX_PARAMETERS)[:_MAX_PARAMETERS])
        return value

    def get_content_type(self) -> str:
        """The parser calls this to decide how to continue."""
        return "text/plain" if self.is_closed else super().get_content_type()

    def get_content_maintype(self) -> str:
        return self.get_content_type().partition("/")[0]


class MailPart(Bounded):
    """A part that keeps a report as one text."""

    def get_content_type(self) -> str:
        found = super().get_content_type()
        return _REPORTS.get(found, found)

    @cached_property
    def text(self) -> str:
        """Cached, because every recogniser asks for it and decoding takes time."""
        payload = self.get_payload(decode=True)
        if not isinstance(payload, bytes):
            return ""
        text = decoded(payload, str(self.get_content_charset() or ""))[:MAX_TEXT]
        return seen(text) if self.get_content_type() == "text/html" else text


_Kind = TypeVar("_Kind", bound=Bounded)


def parse(content: bytes) -> Message:
    """Parse a mail. Never raises: what the parser cannot read becomes headers and one text."""
    lines = in_lines(_worth_reading(content))
    try:
        return parsed(lines, MailPart)
    except Exception:
        return BytesHeaderParser(_class=MailPart, policy=compat32).parsebytes(lines[:MAX_READ])


def parsed(content: bytes, kind: type[_Kind]) -> Message:
    """Parse a mail in which only a limited number of parts may have parts themselves."""
    made: list[_Kind] = []

    def make(policy: Any = compat32) -> _Kind:
        part = kind(policy)
        part.is_closed = len(made) > MAX_PARTS or sum(one.is_multipart() for one in made) > _MAX_OPEN
        if not part.is_closed:
            made.append(part)
        return part

    parser = BytesFeedParser(make, policy=compat32)
    parser.feed(content)
    return parser.close()


def head_of(content: bytes) -> Message:
    head, _, _ = in_lines(content[:_MAX_HEAD]).partition(b"\n\n")
    return BytesHeaderParser(_class=MailPart, policy=compat32).parsebytes(head)


def in_lines(content: bytes) -> bytes:
    """The content with LF as the only line end."""
    return _LINE_END.sub(lambda end: b"\n" * (1 if end[0].endswith(b"\n") else len(end[0])), content).lstrip(b"\n")


def _worth_reading(content: bytes) -> bytes:
    """The beginning, and the report if it follows a large part."""
    if len(content) <= MAX_READ:
        return content
    late = _LATE_REPORT.search(content, MAX_READ - 1024)
    if late is None:
        return content[:MAX_READ]
    begin = max(content.rfind(b"\n--", 0, late.start()), MAX_READ)
    return content[:MAX_READ] + b"\n" + content[begin:][:MAX_READ].lstrip(b"\r\n")


def parts(mail: Message) -> list[Message]:
    """The parts of the mail itself, without those of a returned mail."""
    waiting = [mail]
    found: list[Message] = []
    while waiting and len(found) < MAX_PARTS:
        part = waiting.pop(0)
        found.append(part)
        payload = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(payload, list):
            waiting += [one for one in payload if isinstance(one, Message)]
    return found


def included(part: Message) -> Message | None:
    """The mail, or its headers, inside this part."""
    payload = part.get_payload()
    if part.get_content_type() == "message/rfc822" and isinstance(payload, list) and payload:
        return payload[0] if isinstance(payload[0], Message) else None
    if part.get_content_type() == "text/rfc822-headers" or part.get_content_maintype() == "message":
        headers = BytesHeaderParser(_class=MailPart, policy=compat32)
        return headers.parsebytes(text_of(part).lstrip().encode("utf-8", "replace"))
    return None


def is_text(part: Message) -> bool:
    """Whether people may read something in it. Also true for a multipart whose parts are not marked."""
    kind = part.get_content_maintype()
    if part.get_content_type() == "text/rfc822-headers":
        return False
    return kind == "text" or (kind == "multipart" and isinstance(part.get_payload(), str))


def text_of(part: Message) -> str:
    return part.text if isinstance(part, MailPart) else ""


def seen(page: str) -> str:
    """The visible text of an HTML page."""
    shown: list[str] = []
    begin, is_shown = 0, True
    for found in _UNSEEN.finditer(page):
        if is_shown and not found[1]:
            shown.append(page[begin : found.start()])
        if is_shown == (not found[1]):
            begin, is_shown = found.start(), bool(found[1])
    # An element that is never closed hides nothing.
    shown.append(page[begin:])
    return html.unescape(_TAG.sub(" ", _BREAK.sub("\n", " ".join(shown))))


def decoded(content: bytes, charset: str) -> str:
    """The text, decoded with the declared charset if that can be right."""
    charset = charset.lower()
    is_odd = charset.startswith(_NOT_ASCII)
    if charset.startswith(("utf-16", "utf-32")) and b"\0" not in content:
        is_odd = False
    if content.isascii() and not is_odd:
        return content.decode("ascii")
    for name in dict.fromkeys((charset if charset not in ("", "us-ascii", "ascii") else "utf-8", "utf-8")):
        try:
            return content.decode(name)
        except (LookupError, ValueError):
            continue
    return content.decode("utf-8", "replace") if charset else content.decode("latin-1")


def spellings(part: Message) -> Iterator[str]:
    """Texts that may be a report: decoded as declared, as written, and decoded from undeclared base64."""
    text = text_of(part)
    yield text
    raw = part.get_payload()
    if isinstance(raw, str) and raw != text:
        yield raw[:MAX_TEXT].encode("utf-8", "replace").decode()
    if _BASE64.fullmatch(text.strip()):
        try:
            yield base64.b64decode("".join(text.split()) + "==").decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return


def status_blocks(text: str) -> list[Fields]:
    """The groups of fields in a delivery report (RFC 3464), even if continuation lines are not indented, there are
    too few or too many blank lines, or a blank before the colon."""
    blocks: list[Fields] = []
    for paragraph in re.split(r"\n[ \t]*\n", text)[:MAX_PARTS]:
        for block in islice(_blocks_of(paragraph), MAX_PARTS - len(blocks)):
            is_rest = blocks and not _names_somebody(block) and _names_somebody(blocks[-1])
            if is_rest and "action" not in blocks[-1]:
                blocks[-1] = block | blocks[-1]
            else:
                blocks.append(block)
    return blocks


def _blocks_of(paragraph: str) -> Iterator[Fields]:
    block: Fields = {}
    name = ""
    for line in paragraph.split("\n"):
        field = None if line[:1] in (" ", "\t") else _FIELD.match(line)
        new = field[1].lower() if field else ""
        if field is None or not (new in _STATUS_FIELDS or new.startswith("x-")):
            if name:
                block[name] = f"{block[name]} {' '.join(line.split())}"[:4000]
            continue
        name = new
        if name in block and name in ("final-recipient", "original-recipient", "action"):
            yield block
            block = {}
        if name in block:
            name = ""  # the first one counts
        else:
            block[name] = " ".join(field[2].split())
    if block:
        yield block


def _names_somebody(block: Fields) -> bool:
    return "final-recipient" in block or "original-recipient" in block


def fields_of(text: str) -> dict[str, list[str]]:
    """The fields of another kind of report: name in lower case → its values."""
    found: dict[str, list[str]] = {}
    last: list[str] = []
    for line in text.split("\n")[:1000]:
        field = None if line[:1] in (" ", "\t") else _FIELD.match(line)
        if field:
            last = found.setdefault(field[1].lower(), [])
            last.append(field[2].strip())
        elif last:
            last[-1] = f"{last[-1]} {line.strip()}"[:2000].strip()
    return found


def all_of(message: Message, name: str) -> list[str]:
    """The values of a header, each on one line."""
    return [" ".join(str(value)[:_MAX_VALUE].split()) for value in message.get_all(name, [])[:_MAX_PARAMETERS]]


def value_of(message: Message, name: str) -> str:
    """The first value; "" if there is none."""
    return next(iter(all_of(message, name)), "")


def words_of(message: Message, name: str) -> str:
    """The first value, with encoded words decoded."""
    text = value_of(message, name)
    try:
        return str(make_header(decode_header(text)))
    except (ValueError, LookupError):
        return text
