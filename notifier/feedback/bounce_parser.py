"""Reads what mail servers send after they accepted a mail: delivery reports (RFC 3464), formats of servers that
follow no standard, and complaints (ARF, RFC 5965, and Microsoft's own form).

All of it is written by strangers. A report is only read for its codes and words; other modules decide whose it is
and what it means. Recognisers are tried in turn, and one that fails or finds nothing leaves the mail to the next.
No mail may make reading fail: a mail that cannot be read is not a report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TypeVar

from notifier.config.logs import log
from notifier.feedback.bounce_report import Action, Bounce, Complaint, Read
from notifier.feedback.bounce_texts import (
    ADDRESS,
    BASIC,
    CODE,
    answer_in,
    asked_for,
    is_passed_on,
    is_reply,
    read_text,
    said_in,
    specific_code,
    stage_of,
)
from notifier.feedback.mail_parts import (
    Bounded,
    Fields,
    all_of,
    fields_of,
    head_of,
    included,
    is_text,
    parse,
    parsed,
    parts,
    spellings,
    status_blocks,
    value_of,
    words_of,
)
from notifier.providers.mail.code_table import Stage
from notifier.providers.mail.codes import SmtpReply
from notifier.providers.mail.phrases import kinds_in

#: Maximum bytes searched for non-standard formats, which need many expressions.
_MAX_ODD = 16 * 1024
#: A server's time that is further from ours than this is ignored.
_PLAUSIBLE = timedelta(days=30)

#: Complaints of RFC 5965 and its extensions. "not-spam" is not a complaint, and "auth-failure" is about
#: signatures.
_COMPLAINTS = frozenset({"abuse", "fraud", "opt-out", "opt-out-list"})
#: Headers that contain the envelope's recipient.
_ADDRESS_HEADERS = ("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To")
#: Words for actions, including some that RFC 3464 section 2.3.3 does not have.
_ACTIONS = {
    "failure": Action.FAILED,
    "undeliverable": Action.FAILED,
    "undelivered": Action.FAILED,
    "bounced": Action.FAILED,
    "rejected": Action.FAILED,
    "delay": Action.DELAYED,
    "deferred": Action.DELAYED,
    "success": Action.DELIVERED,
} | {str(action): action for action in Action}

#: Maximum non-standard fields of one group that are searched for an answer.
_MAX_OTHERS = 20
#: Together with a failure, these are about another address, behind the recipient's.
_UNDER_WAY = frozenset({Action.DELAYED, Action.RELAYED, Action.EXPANDED})
_WORD = re.compile(r"[a-z-]+")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
#: The prefix before what a server said, such as "smtp;".
_TYPE = re.compile(r"^\s?(x-)?[\w.-]{1,40}\s?;\s?", re.IGNORECASE)
#: Cisco writes "<mx.example.org #5.0.0 smtp; 550 5.1.1 …>", Exchange the same without the host.
_WRAPPED = re.compile(r"^<?\s?\S*\s?#\s?[\d.]+\s(?:smtp|x400|dns)?\s?;?\s?", re.IGNORECASE)
_JMRP_SUBJECT = re.compile(r"^complaint about message from\b", re.IGNORECASE)
_HOTMAIL_RECIPIENT = "X-HmXmrOriginalRecipient"

_Found = TypeVar("_Found")


@dataclass
class _Mail:
    """A mail, and what is computed from it when needed."""

    content: bytes

    @cached_property
    def message(self) -> Message:
        return parse(self.content)

    @cached_property
    def parts(self) -> list[Message]:
        return parts(self.message)

    @cached_property
    def said(self) -> str:
        """The text that people read."""
        return said_in(self.message)

    @cached_property
    def answer(self) -> str:
        """The part of that text that gives the reason."""
        return answer_in(self.said)

    @cached_property
    def stage(self) -> Stage:
        """The command that was refused, according to that text."""
        return stage_of(self.said)

    def status_texts(self) -> Iterator[str]:
        """Texts that may be delivery reports: first parts that are marked as one, then any text."""
        marked = [part for part in self.parts if part.get_content_type() == "text/delivery-status"]
        others = [part for part in self.parts if part not in marked and is_text(part)]
        for part in [*marked, *others]:
            yield from spellings(part)


def addresses_in(content: bytes) -> tuple[str, ...]:
    """The recipients in the headers. Nothing else is read. Never raises."""

    def read(mail: _Mail) -> tuple[str, ...]:
        head = head_of(mail.content)
        texts = (text for header in _ADDRESS_HEADERS for text in all_of(head, header))
        return tuple(address for text in texts for address in ADDRESS.findall(text))

    return _guarded(read, _Mail(content)) or ()


def read_mail(content: bytes) -> Read:
    """Read a mail. Never raises, whatever the mail contains."""
    mail = _Mail(content)
    for recognise in RECOGNISERS:
        report = _guarded(recognise, mail)
        if report is not None:
            return Read(report)
    return Read(None, _guarded(lambda found: is_reply(found.message), mail) or False)


def _guarded(read: Callable[[_Mail], _Found], mail: _Mail) -> _Found | None:
    try:
        return read(mail)
    except Exception as error:
        log.info("bounce.unreadable", error=type(error).__name__, size=len(mail.content))
        return None


def _complaint(mail: _Mail) -> Complaint | None:
    """A feedback report of RFC 5965."""
    for part in mail.parts:
        if part.get_content_type() != "text/feedback-report" and not is_text(part):
            continue
        for text in spellings(part):
            fields = fields_of(text)
            kind = next(iter(fields.get("feedback-type", ())), "").lower()
            if kind in _COMPLAINTS:
                named, paths = fields.get("original-rcpt-to", []), fields.get("original-mail-from", [])
                return _complaint_about(mail, kind, named, paths)
    return None


def _hotmail_complaint(mail: _Mail) -> Complaint | None:
    """Microsoft's Junk Mail Reporting Program: the mail itself, with its recipient in a header."""
    mails = [mail.message, *filter(None, map(included, mail.parts))]
    named = [value for one in mails for value in all_of(one, _HOTMAIL_RECIPIENT)]
    if named or (_JMRP_SUBJECT.search(words_of(mail.message, "Subject")) and len(mails) > 1):
        return _complaint_about(mail, "abuse", named, [])
    return None


def _complaint_about(mail: _Mail, kind: str, named: list[str], return_paths: list[str]) -> Complaint:
    original = next(filter(None, map(included, mail.parts)), None)
    if original is None and _HOTMAIL_RECIPIENT in mail.message:
        original = mail.message
    message_id = ""
    if original is not None:
        return_paths = return_paths + all_of(original, "Return-Path") + all_of(original, "X-Sender")
        message_id = value_of(original, "Message-ID").strip("<> ")[:200]
    addresses = [found for text in named for found in ADDRESS.findall(text)]
    paths = [found for text in return_paths for found in ADDRESS.findall(text)]
    return Complaint(kind, tuple(addresses), tuple(paths), message_id)


def _standard(mail: _Mail) -> Bounce | None:
    """A delivery report of RFC 3464, however it is packed."""
    for text in mail.status_texts():
        bounces = [bounce for bounce in (_bounce(block, mail) for block in status_blocks(text)) if bounce]
        if bounces:
            return _of_all(bounces)
    return None


def _of_all(bounces: list[Bounce]) -> Bounce:
    """The one report that counts. Our mails have one recipient, but an alias or a forwarder may cause several
    answers. If one of them says that the mail arrived, it arrived; otherwise the most serious answer counts."""
    arrived = [one for one in bounces if one.action is Action.DELIVERED]
    found = arrived[0] if arrived else min(bounces, key=lambda one: list(Action).index(one.action))
    targets = {(one.named[-1].lower() if one.named else "", one.action in _UNDER_WAY) for one in bounces}
    return replace(found, targets=max(len(targets), found.targets))


def _bounce(block: Fields, mail: _Mail) -> Bounce | None:
    """The report in one group of fields; None if it is about no recipient."""
    if "final-recipient" not in block and "original-recipient" not in block and "action" not in block:
        return None
    status = next((found[0] for found in CODE.finditer(block.get("status", ""))), "")
    action = _action(block.get("action", ""), status)
    if action is None:
        return None
    words, is_quoted = _quoted(block), True
    if not words:
        words, is_quoted = mail.answer, False
    remote = _HOST.search(block.get("remote-mta", "").partition(";")[2].strip())
    fields = ("original-recipient", "final-recipient", "x-actual-recipient")
    # As in "rfc822; zoe@example.net".
    named = [block.get(name, "").rpartition(";")[2].strip(" <>\"'\t.") for name in fields]
    named += asked_for(f"{mail.said}\n{words}")
    return Bounce(
        action,
        _answer(status, words),
        remote[0] if remote else "",
        _time(block.get("last-attempt-date", "")),
        next(filter(None, named), ""),
        tuple(filter(None, named)),
        targets=2 if is_passed_on(mail.said) else 1,
        status=status,
        is_quoted=is_quoted,
        stage=mail.stage if mail.stage is not Stage.RCPT else stage_of(words),
    )


def _quoted(block: Fields) -> str:
    """What the refusing server said, as quoted in the report; "" if it quotes nothing."""
    found = [_TYPE.sub("", block.get("diagnostic-code", ""), count=1).strip()]
    cisco = block.get("x-supplementary-info", "")
    others = [value for name, value in block.items() if name.startswith("x-") and name != "x-supplementary-info"]
    others = others[:_MAX_OTHERS]
    found += [_WRAPPED.sub("", _TYPE.sub("", cisco, count=1) if cisco[:1] != "<" else cisco).strip(" >")]
    found += [value for value in others if BASIC.search(value) and kinds_in(value)]
    telling = [text for text in found if specific_code(text) or kinds_in(text)]
    return next(iter(telling), next(filter(None, found), ""))


def _action(text: str, status: str) -> Action | None:
    word = _WORD.search(text.lower())
    if word and word[0] in _ACTIONS:
        return _ACTIONS[word[0]]
    return Action.FAILED if status[:1] in ("4", "5") else None


def _answer(status: str, words: str) -> SmtpReply:
    """The answer with the code in the text; without one, with the report's code."""
    basic = BASIC.search(words)
    enhanced = specific_code(words)
    is_vague = not enhanced or enhanced.split(".")[1] == "0"
    if is_vague and status and (not basic or basic[1][0] == status[0]) and status[0] in "45":
        enhanced = status if not enhanced or status.split(".")[1] != "0" else enhanced
    if not enhanced:
        return SmtpReply(basic[1] if basic else (f"{status[0]}50" if status else ""), "", words)
    fits = basic is not None and basic[1][0] == enhanced[0]
    return SmtpReply(basic[1] if basic and fits else f"{enhanced[0]}50", enhanced, words)


def _text(mail: _Mail) -> Bounce | None:
    """A report in no standard format."""
    return read_text(mail.message, lambda: parsed(mail.content[:_MAX_ODD], Bounded))


def _forwarded(mail: _Mail) -> Bounce | None:
    """A report inside another mail, as gateways wrap what they pass on."""
    for part in mail.parts:
        held = included(part) if part.get_content_type() == "message/rfc822" else None
        if held is None:
            continue
        inner = _Mail(held.as_bytes())
        found = _guarded(_standard, inner) or _guarded(_text, inner)
        if found is not None:
            return replace(found, is_doubtful=True)
    return None


#: In the order in which they are tried: the most reliable first.
RECOGNISERS: tuple[Callable[[_Mail], Bounce | Complaint | None], ...] = (
    _complaint,
    _standard,
    _hotmail_complaint,
    _text,
    _forwarded,
)


def _time(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        # RFC 5322 section 3.3: "-0000" is UTC without a stated place.
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if abs(moment - datetime.now(UTC)) < _PLAUSIBLE else None
