"""Decides what a mail server's answer means, and whom it is about.

The code alone does not say whom an answer is about. An answer to RCPT is taken to be about the recipient or their
domain unless something else is proved: relays refuse a single domain in the same words in which they refuse an
account. An answer that names one of our addresses is about the sender. An answer that repeats another server's is
about that server's domain. `judge` considers all of this, on top of the table in `code_table`.

It also reads bounces, because delivery reports carry the same codes.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from notifier.domain.statuses import Outcome, Reason, Subject
from notifier.providers.mail.code_table import FULL, LATE, NOT_NOW, TABLE, Stage
from notifier.providers.mail.phrases import Kind, is_temporary, kinds_in
from notifier.providers.outcomes import (
    DESTINATION_REFUSED,
    NOT_FOR_RECIPIENT,
    REFUSED_HERE,
    SENDER_REFUSED_HERE,
    UNAVAILABLE,
    UNKNOWN,
    UNREACHABLE,
    Verdict,
)

_ENHANCED_CODE = re.compile(r"([245])\.\d{1,3}\.\d{1,3}(?![\d.])")


@dataclass(frozen=True, slots=True)
class SmtpReply:
    #: Three digits. Anything else means that the server does not speak SMTP.
    basic: str
    #: The RFC 3463 code; empty if the server gives none, or one that contradicts the basic code.
    enhanced: str
    #: The server's text, without the enhanced code.
    text: str

    @property
    def code(self) -> str:
        """Both codes, for the record: "550 5.1.1"."""
        return f"{self.basic} {self.enhanced}".strip()


def read_answer(basic: int, text: str) -> SmtpReply:
    """Parse a reply. `text` may have several lines, each of which may repeat the enhanced code."""
    found = _ENHANCED_CODE.match(text)
    if not found or found[1] != str(basic)[:1]:
        return SmtpReply(str(basic), "", text)
    lines = [line.removeprefix(found[0]).strip() for line in text.splitlines()]
    return SmtpReply(str(basic), found[0], " ".join(lines))


#: Maximum characters that are read, so that a hostile server cannot cost us time in a regular expression.
_MAX_READ = 2000
#: Answers that repeat another server's: "host mx.example.org[192.0.2.5] said: 550 5.1.1 …", "response to RCPT TO
#: was: 550 …", "from MTA(smtp:…): 554 …".
_REPEATED = re.compile(
    r"\b(?:(?:said|replied|answered|returned|respon(?:se|ded))\b|(?P<own>from MTA\())"
    r".{0,200}?"
    r"(?<![\d.])(?P<basic>[45]\d\d)[ -]+(?:(?P<enhanced>[45]\.\d{1,3}\.\d{1,3})[ :])?(?P<text>.*)",
    re.IGNORECASE | re.DOTALL,
)
_IN_REPLY_TO = re.compile(r"in reply to (?:the )?(?P<command>MAIL|end of DATA|DATA)", re.IGNORECASE)
_NAMED_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"'=]{1,64}@[^\s<>()\[\],;:\"'=]{1,255}")
_UNVERIFIED = re.compile(r"not verified|identities failed", re.IGNORECASE)
#: Other spellings of @: "shop=40example.com", "shop @ example.com", "shop (at) …".
_ENCODED_AT = re.compile(r"[=%+]40(?=[a-z0-9])|\s{1,3}@\s{1,3}|\s{0,3}[(\[](?:at|@)[)\]]\s{0,3}", re.IGNORECASE)
#: Kinds of phrases that contradict "no such mailbox", whatever the code.
_AGAINST_NOBODY = frozenset({Kind.FULL, Kind.EXPIRED, Kind.RATE, Kind.SENDER, Kind.POLICY})
#: Phrases of a server that has not verified the address yet.
_UNFINISHED = re.compile(r"\bin progress\b|\bunverified address\b|\bnot yet\b", re.IGNORECASE)


class _Named(StrEnum):
    """Whose addresses an answer names."""

    NOBODY = "nobody"
    OURS = "ours"  #: at least one of ours
    RECIPIENT = "recipient"
    OTHERS = "others"  #: neither ours nor the recipient's, such as the target of an alias


def judge(stage: Stage, answer: SmtpReply, *, recipient: str = "", ours: Collection[str] = ()) -> Verdict:
    """Decide what a refusal means, and whom it is about.

    If the answer is not a refusal (2xx or 3xx at the wrong place, or no SMTP at all), the outcome is unknown if
    the body was sent. Before that it only means that the server does not work.

    Args:
        stage: The command that was answered. A bounce is read as an answer to RCPT.
        answer: The server's reply.
        recipient: The address that we sent to. "": unknown, so any named address that is not ours counts as the
            recipient.
        ours: Our addresses in that mail: the From address and the return path.
    """
    if not answer.basic.startswith(("4", "5")):
        return UNKNOWN if stage is Stage.BODY else UNAVAILABLE
    answer = replace(answer, text=answer.text[:_MAX_READ])
    verdict = _of_servers(stage, answer, recipient, ours)
    return _weighed(verdict, answer.text, recipient, ours) if verdict.suppress else verdict


def _of_servers(stage: Stage, answer: SmtpReply, recipient: str, ours: Collection[str]) -> Verdict:
    """The verdict on what the server says itself, or on what it repeats of another server."""
    repeated = _REPEATED.search(answer.text)
    if repeated is None:
        return _at_stage(stage, _about_whom(stage, answer, recipient, ours))
    verdict = _about_whom(_stage_of(repeated), _inner(answer, repeated), recipient, ours)
    if verdict.suppress and repeated["basic"][0] != answer.basic[0]:
        # One server calls it final and the other does not, so nobody is known to be dead.
        return UNREACHABLE
    # A content filter repeats the server behind it, which is ours.
    return _at_stage(stage, verdict) if repeated["own"] else _of_another_server(verdict)


def _at_stage(stage: Stage, verdict: Verdict) -> Verdict:
    """The verdict, corrected for relays: they refuse one domain in the words in which they refuse an account,
    though they accepted the account at MAIL."""
    return REFUSED_HERE if stage in LATE and verdict.subject is Subject.ACCOUNT else verdict


def _weighed(verdict: Verdict, text: str, recipient: str, ours: Collection[str]) -> Verdict:
    """The same verdict, unless the text contradicts "no such mailbox"."""
    kinds = kinds_in(text)
    if Kind.SENDER in kinds:
        return SENDER_REFUSED_HERE
    if kinds & {Kind.FULL, Kind.RATE} or is_temporary(text) or _UNFINISHED.search(text):
        return FULL
    return UNREACHABLE if kinds & _AGAINST_NOBODY or _names_our_domain(text, recipient, ours) else verdict


def _stage_of(repeated: re.Match[str]) -> Stage:
    found = _IN_REPLY_TO.search(repeated["text"])
    if found is None:
        return Stage.RCPT
    return Stage.MAIL if found["command"].upper() == "MAIL" else Stage.BODY


def _inner(answer: SmtpReply, repeated: re.Match[str]) -> SmtpReply:
    """What the other server said, but with the first digit of the answer that repeats it."""
    class_, basic, enhanced = answer.basic[0], repeated["basic"], repeated["enhanced"] or ""
    if enhanced[:1] not in ("", basic[0]):
        enhanced = ""
    basic = basic if basic[0] == class_ else f"{class_}50"
    return SmtpReply(basic, class_ + enhanced[1:] if enhanced else "", repeated["text"])


def _about_whom(stage: Stage, answer: SmtpReply, recipient: str, ours: Collection[str]) -> Verdict:
    """The table's verdict, corrected by whose address the text names."""
    fits = (row.verdict for row in TABLE if row.fits(stage, answer.basic, answer.enhanced, answer.text))
    verdict = next(fits, UNAVAILABLE)
    named = _named(answer.text, recipient, ours)
    if verdict.subject is Subject.SENDER and named is _Named.RECIPIENT and _UNVERIFIED.search(answer.text):
        # Amazon SES in its sandbox sends to verified addresses only.
        return NOT_FOR_RECIPIENT if recipient else verdict
    if named is _Named.OURS and stage in LATE and _is_about_somebody(verdict):
        return SENDER_REFUSED_HERE
    is_later = verdict == UNAVAILABLE and answer.basic.startswith("4")
    if is_later and named is _Named.RECIPIENT and stage in LATE:
        return NOT_NOW
    return replace(verdict, suppress=verdict.suppress and named in (_Named.NOBODY, _Named.RECIPIENT))


def _is_about_somebody(verdict: Verdict) -> bool:
    """Whether it is a permanent refusal for a cause other than the content, or is about our account."""
    if verdict.outcome is Outcome.REJECTED:
        return verdict.reason is not Reason.CONTENT_REFUSED
    return verdict.subject is Subject.ACCOUNT


def _named(text: str, recipient: str, ours: Collection[str]) -> _Named:
    text = _ENCODED_AT.sub("@", text.lower())
    named = {found[0].rstrip(".") for found in _NAMED_ADDRESS.finditer(text)}
    to = recipient.lower()
    # In a mail to ourselves, that address counts as the recipient.
    others = {address.lower() for address in ours} - {to}
    if named & others or any(spelling in text for address in others for spelling in _rewritten(address)):
        return _Named.OURS
    if not named:
        return _Named.NOBODY
    return _Named.RECIPIENT if not to or to in named else _Named.OTHERS


def _rewritten(address: str) -> tuple[str, str]:
    """The address as forwarders rewrite it: "shop=example.com@…", "SRS0=…=example.com=shop@…"."""
    local, _, domain = address.rpartition("@")
    return f"{local}={domain}", f"{domain}={local}@"


def _names_our_domain(text: str, recipient: str, ours: Collection[str]) -> bool:
    """Whether the text names a domain of ours that is not also the recipient's."""
    domains = {address.rpartition("@")[2].lower() for address in ours} - {recipient.rpartition("@")[2].lower(), ""}
    if not recipient or not domains:
        return False
    return (
        re.search(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, domains))})(?![\w-]|\.\w)", text.lower()) is not None
    )


def _of_another_server(verdict: Verdict) -> Verdict:
    """The verdict if the recipient's server answered our server: it knows nothing of our account there."""
    match verdict.subject:
        case Subject.ACCOUNT:
            return DESTINATION_REFUSED
        case Subject.PROVIDER:
            return replace(verdict, subject=Subject.DESTINATION)
        case Subject.SENDER:
            return replace(verdict, is_doubtful=True)
        case Subject.RECIPIENT | Subject.DESTINATION | Subject.CONTENT:
            return verdict
        case _:
            assert_never(verdict.subject)


#: How servers report their id of an accepted message, in the order in which they are tried. Source: the servers'
#: manuals and source code.
_QUEUE_IDS = (
    re.compile(r"queued as ([\w.-]+)", re.IGNORECASE),  # Postfix, SendGrid, Mailgun
    re.compile(r"\bid=([\w.-]+)"),  # Exim
    re.compile(r"\[InternalId=(\d+)"),  # Exchange
    re.compile(r"^OK\s+\d+ ([\w.-]+) - gsmtp", re.IGNORECASE),  # Gmail
    re.compile(r"^([\w.-]+) Message accepted", re.IGNORECASE),  # Sendmail, OpenSMTPD
    re.compile(r"\bqp (\d+)"),  # qmail
    re.compile(r"^Ok:? ([\w.-]{16,})$", re.IGNORECASE),  # Amazon SES
)


def queue_id(text: str) -> str:
    """The server's id of an accepted message, from the text of its 250. If there is none, the text itself."""
    words = read_answer(250, text).text.strip()
    for pattern in _QUEUE_IDS:
        found = pattern.search(words)
        if found:
            return found[1]
    return words[:100]
