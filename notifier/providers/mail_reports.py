"""What mail servers say later about a mail that they took: delivery reports (RFC 3464), the odd formats of servers
that keep to no standard, and complaints (ARF, RFC 5965).

Everything here is written by strangers. A report is read for its codes and its words; whose it is, others decide.
Nothing in a mail may make reading it fail: what cannot be read is no report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.parser import BytesParser, HeaderParser
from email.policy import compat32
from email.utils import parsedate_to_datetime
from enum import StrEnum

from flufl.bounce import all_failures

from notifier.providers.smtp_codes import Answer
from notifier.telemetry import log

#: A report stands before the mail that it returns; nothing behind this is looked at. Bytes.
MAX_READ = 256 * 1024
#: The odd formats are found by many expressions, which are tried on no more than this. Bytes.
_MAX_ODD = 32 * 1024
#: Parts of a mail that are looked at, and blocks of a report.
_MAX_PARTS = 100
#: A server's clock may be wrong by so much before its time is worth nothing.
_PLAUSIBLE = timedelta(days=30)


class Action(StrEnum):
    """What became of the mail, in the words of RFC 3464 section 2.3.3; the most serious first."""

    FAILED = "failed"  #: given up
    DELAYED = "delayed"  #: not yet; tried again
    DELIVERED = "delivered"  #: arrived
    RELAYED = "relayed"  #: handed on to somewhere that sends no reports
    EXPANDED = "expanded"  #: delivered to an alias with several recipients


@dataclass(frozen=True, slots=True)
class Bounce:
    """A delivery report."""

    action: Action
    #: What the server that refused it said. Its text is raw: it may name people.
    answer: Answer
    #: The name of that server; "" if the report does not say.
    remote: str = ""
    occurred_at: datetime | None = None
    #: Whom it names, as somebody wrote it; "" if nobody.
    recipient: str = ""


@dataclass(frozen=True, slots=True)
class Complaint:
    """Somebody called a mail spam."""

    #: "abuse".
    kind: str
    #: To whom the mail went, as far as the report says.
    recipients: tuple[str, ...] = ()
    #: Envelope senders of the mail that it is about.
    return_paths: tuple[str, ...] = ()
    #: Its Message-ID, without brackets; "" if there is none.
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """A mail to the bounce address, read."""

    #: Whom it is to, by its headers.
    addresses: tuple[str, ...] = ()
    report: Bounce | Complaint | None = None


#: Those of RFC 5965 and its extensions that are a recipient's word against us. "not-spam" is praise,
#: "auth-failure" is about signatures.
_COMPLAINTS = frozenset({"abuse", "fraud", "opt-out", "opt-out-list"})
#: Where an MTA, or a bounce itself, notes the envelope's recipient.
_ADDRESS_HEADERS = ("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To")

_ADDRESS = re.compile(r"[^\s<>,;:\"()]{1,64}@[A-Za-z0-9.-]{1,255}")
_CODE = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
_BASIC = re.compile(r"(?<![\d.])([245]\d\d)[ -]")
_WORD = re.compile(r"[a-z-]+")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")


def read_mail(content: bytes) -> Read:
    """Read a mail. Raises nothing, whatever it holds."""
    try:
        mail = BytesParser(policy=compat32).parsebytes(content[:MAX_READ])
        return Read(tuple(_addresses(mail)), _report(mail, content))
    except Exception as error:
        # The parser of the standard library raises on some of what is no mail: nested a thousand times, say.
        log.info("bounce.unreadable", error=type(error).__name__, size=len(content))
        return Read()


def _report(mail: Message, content: bytes) -> Bounce | Complaint | None:
    parts = [part for part, _ in zip(_walk(mail), range(_MAX_PARTS), strict=False)]
    for part in parts:
        if part.get_content_type() == "message/feedback-report":
            return _complaint(part, parts)
    for part in parts:
        if part.get_content_type() in ("message/delivery-status", "message/global-delivery-status"):
            bounces = [bounce for bounce in map(_bounce, _blocks(part)) if bounce]
            # Our mails have one recipient; who has it forwarded to several may get several answers.
            return min(bounces, key=lambda one: list(Action).index(one.action), default=None)
    if _text_of(mail, "Auto-Submitted").lower().startswith("auto-replied"):
        return None
    return _odd(content)


def _walk(mail: Message) -> Iterator[Message]:
    """The parts of the report itself, not those of a mail that it returns."""
    waiting = [mail]
    while waiting:
        part = waiting.pop(0)
        yield part
        payload = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(payload, list):
            waiting += [one for one in payload if isinstance(one, Message)]


def _blocks(part: Message) -> Iterator[Message]:
    """The groups of fields of a delivery report, in whatever shape the parser left them."""
    payload = part.get_payload()
    texts: list[str] = []
    if isinstance(payload, list):
        for block in payload[:_MAX_PARTS]:
            if isinstance(block, Message):
                yield block
                rest = block.get_payload()
                texts.append(rest if isinstance(rest, str) else "")
    else:
        # RFC 3464 forbids an encoding, and some encode it all the same.
        decoded = part.get_payload(decode=True)
        texts.append(decoded.decode("utf-8", "replace") if isinstance(decoded, bytes) else "")
    for text in texts:
        for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n"))[:_MAX_PARTS]:
            if paragraph.strip():
                yield HeaderParser(policy=compat32).parsestr(paragraph.strip("\n") + "\n\n")


def _bounce(block: Message) -> Bounce | None:
    """What one group of fields says; None if it is about no recipient."""
    if "Final-Recipient" not in block and "Original-Recipient" not in block and "Action" not in block:
        return None
    diagnostic = _text_of(block, "Diagnostic-Code")
    kind, has_kind, words = diagnostic.partition(";")
    answer = _answer(_text_of(block, "Status"), (words if has_kind else kind).strip())
    action = _action(_text_of(block, "Action"), answer)
    if action is None:
        return None
    remote = _HOST.search(_text_of(block, "Remote-MTA").partition(";")[2].strip())
    named = _text_of(block, "Original-Recipient") or _text_of(block, "Final-Recipient")
    return Bounce(
        action,
        answer,
        remote[0] if remote else "",
        _time(_text_of(block, "Last-Attempt-Date")),
        named.rpartition(";")[2].strip(" <>"),
    )


def _action(text: str, answer: Answer) -> Action | None:
    word = _WORD.search(text.lower())
    if word and word[0] in list(Action):
        return Action(word[0])
    return Action.FAILED if answer.enhanced[:1] in ("4", "5") else None


def _answer(status: str, words: str) -> Answer:
    """The codes of the field Status and of the server's words, whichever says more: "5.0.0" says nothing."""
    codes = [found[0] for found in _CODE.finditer(status)] + [found[0] for found in _CODE.finditer(words)]
    enhanced = next((code for code in codes if code.split(".")[1] != "0"), codes[0] if codes else "")
    basic = _BASIC.search(words)
    if not enhanced:
        return Answer(basic[1] if basic else "", "", words)
    # Of two classes the report's own holds: a server gave up on what another had only put off.
    if status[:1] in ("4", "5") and enhanced[0] != status[0] and enhanced not in status:
        enhanced = status[0] + enhanced[1:]
    fits = basic is not None and basic[1][0] == enhanced[0]
    return Answer(basic[1] if basic and fits else f"{enhanced[0]}50", enhanced, words)


def _odd(content: bytes) -> Bounce | None:
    """A report in none of the standard's forms: flufl.bounce knows what many servers write."""
    mail = BytesParser(policy=compat32).parsebytes(content[:_MAX_ODD])
    if "From" not in mail:
        mail["From"] = "<>"  # one of its detectors takes it for granted
    try:
        later, never = all_failures(mail)
    except Exception as error:
        log.info("bounce.unreadable", error=type(error).__name__, size=len(content))
        return None
    if not later and not never:
        return None
    words = _words_of(mail)
    answer = _answer("", words)
    if never and answer.code == "":
        answer = Answer("550", "", words)
    named = min(never or later).decode("utf-8", "replace")
    return Bounce(Action.FAILED if never else Action.DELAYED, answer, recipient=named)


def _words_of(mail: Message) -> str:
    """Of the text that people read: from the first code on, or its beginning."""
    for part, _ in zip(_walk(mail), range(_MAX_PARTS), strict=False):
        payload = part.get_payload(decode=True)
        if part.get_content_maintype() == "text" and isinstance(payload, bytes):
            text = re.split(r"(?m)^-{3,}", payload.decode("utf-8", "replace")[:_MAX_ODD])[0]
            code = _BASIC.search(text) or _CODE.search(text)
            if code is None:
                return " ".join(text.split())[:300]
            begin = text.rfind("\n", 0, code.start()) + 1
            return " ".join(text[begin : begin + 600].split())
    return ""


def _complaint(report: Message, parts: list[Message]) -> Complaint | None:
    fields = next(_blocks(report), None)
    kind = _text_of(fields, "Feedback-Type").lower() if fields else ""
    if fields is None or kind not in _COMPLAINTS:
        return None
    original = next(filter(None, map(_included, parts)), None)
    named = _all_of(fields, "Original-Rcpt-To")
    return_paths = _all_of(fields, "Original-Mail-From")
    message_id = ""
    if original is not None:
        return_paths += _all_of(original, "Return-Path")
        message_id = _text_of(original, "Message-ID").strip("<> ")[:200]
    addresses = [found for text in named for found in _ADDRESS.findall(text)]
    paths = [found for text in return_paths for found in _ADDRESS.findall(text)]
    return Complaint(kind, tuple(addresses), tuple(paths), message_id)


def _included(part: Message) -> Message | None:
    """The mail, or the headers of it, that a complaint is about."""
    payload = part.get_payload()
    if part.get_content_type() == "message/rfc822" and isinstance(payload, list) and payload:
        return payload[0] if isinstance(payload[0], Message) else None
    if part.get_content_type() == "text/rfc822-headers":
        return next(_blocks(part), None)
    return None


def _addresses(mail: Message) -> Iterator[str]:
    for header in _ADDRESS_HEADERS:
        for text in _all_of(mail, header):
            yield from _ADDRESS.findall(text)


def _all_of(message: Message, name: str) -> list[str]:
    return [" ".join(str(value).split())[:2000] for value in message.get_all(name, [])[:_MAX_PARTS]]


def _text_of(message: Message, name: str) -> str:
    return next(iter(_all_of(message, name)), "")


def _time(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        # RFC 5322 section 3.3: "-0000" is UTC, and says nothing about where.
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if abs(moment - datetime.now(UTC)) < _PLAUSIBLE else None
