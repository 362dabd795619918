"""What a mail server's answer means: one ordered table, the first row that fits decides.

RFC 3463 says more than RFC 5321 where a server gives both ("550 5.1.1"), so enhanced codes come before basic ones.
Ahead of both stand the few rows that go by the server's words, because servers use one code for several things:
"550 5.7.1" is a relay that does not know us, a spam filter or a closed mailing list.

Also for bounces: a delivery status notification carries the same codes.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from notifier.providers.verdict import (
    ACCOUNT,
    BAD_RECIPIENT,
    CONTENT,
    NO_SUCH_RECIPIENT,
    REFUSED,
    SENDER_REFUSED,
    THROTTLED,
    UNAVAILABLE,
    UNKNOWN,
    UNREACHABLE,
    Verdict,
)
from notifier.status import Outcome, Reason


class Stage(StrEnum):
    """How far the dialogue had come; what an answer means depends on what was asked."""

    CONNECT = "connect"  #: TCP, greeting, EHLO, TLS
    AUTH = "auth"  #: login
    MAIL = "mail"  #: MAIL FROM
    RCPT = "rcpt"  #: RCPT TO
    DATA = "data"  #: the command DATA, before 354
    BODY = "body"  #: after 354; an answer lost from here on leaves the outcome unknown


#: RFC 6647 section 5 lets a server greylist for a minute to a day; 5 minutes is the default of postgrey.
GREYLIST_SECONDS = 300.0
#: RFC 5321 section 4.5.4.1: the pause between two tries of one destination should be at least 30 minutes.
MAILBOX_FULL_SECONDS = 1800.0

_GREYLISTED = Verdict(Outcome.UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE, retry_after_seconds=GREYLIST_SECONDS)
_TOO_FAST = Verdict(Outcome.THROTTLED, Reason.PROVIDER_THROTTLED, retry_after_seconds=GREYLIST_SECONDS)
_FULL = Verdict(Outcome.UNAVAILABLE, Reason.UNREACHABLE_RECIPIENT, retry_after_seconds=MAILBOX_FULL_SECONDS)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    #: "5.1.1", "5.1.*" and "5.*.*" are compared with the enhanced code, "550" and "5**" with the basic one.
    code: str
    meaning: str
    verdict: Verdict
    source: str
    #: Where in the dialogue the row holds; empty: anywhere.
    stages: tuple[Stage, ...] = ()
    #: Regular expression that the server's text must contain, in any case; empty: any text.
    words: str = ""

    def fits(self, stage: Stage, basic: str, enhanced: str, text: str) -> bool:
        """Whether this row says what that answer means."""
        return (
            (not self.stages or stage in self.stages)
            and (_matches(self.code, enhanced) if "." in self.code else _matches(self.code, basic))
            and (not self.words or re.search(self.words, text, re.IGNORECASE) is not None)
        )


def _matches(pattern: str, code: str) -> bool:
    if "." not in pattern:
        return len(pattern) == len(code) and all(p in ("*", c) for p, c in zip(pattern, code, strict=True))
    parts = code.split(".")
    return len(parts) == 3 and all(p in ("*", c) for p, c in zip(pattern.split("."), parts, strict=True))


_SMTP = "RFC 5321 section 4.2.3"
_ENHANCED = "RFC 3463 section 3"
_AUTH = "RFC 4954 section 6"
_RCPT = (Stage.RCPT,)
_MAIL = (Stage.MAIL,)
_BODY = (Stage.DATA, Stage.BODY)
_LARGE = (Stage.MAIL, Stage.DATA, Stage.BODY)

TABLE: tuple[Row, ...] = (
    # Login and greeting: nothing about the message was said yet, so nothing here may fail the message.
    Row("530", "authentication required", ACCOUNT, _AUTH),
    Row("534", "authentication mechanism too weak", ACCOUNT, _AUTH),
    Row("535", "credentials refused", ACCOUNT, _AUTH),
    Row("538", "encryption required for authentication", ACCOUNT, _AUTH),
    Row("432", "a password transition is needed", ACCOUNT, _AUTH),
    Row("5**", "login refused", ACCOUNT, _AUTH, (Stage.AUTH,)),
    Row("5**", "the server refuses the connection", UNAVAILABLE, "RFC 5321 section 3.1", (Stage.CONNECT,)),
    # By the server's words.
    Row("4**", "greylisted", _GREYLISTED, "RFC 6647 section 2", words=r"gr[ae]y-?\s?list"),
    # One of ours ends with its mail, in a moment.
    Row(
        "4**",
        "too many connections at once",
        THROTTLED,
        "Postfix anvil(8), Exchange and Gmail answer in these words",
        words=r"too many (concurrent )?(smtp )?(connections|sessions)",
    ),
    Row(
        "4**",
        "too fast",
        _TOO_FAST,
        "Amazon SES and Postfix anvil(8) answer in these words",
        words=r"throttl|rate.?limit|sending rate|too (many|much) (messages|mail)|daily (message |sending )?quota",
    ),
    Row(
        "5**",
        "the relay does not know us",
        ACCOUNT,
        "Postfix, Exim and Exchange answer in these words",
        words=r"relay(ing)? (access )?(is )?(denied|not permitted|not allowed|prohibited)|unable to relay|"
        r"not permitted to relay|client was not authenticated|sender address (is )?not verified|"
        r"address(es)? (is|are) not verified",
    ),
    Row(
        "55*",
        "no such mailbox",
        NO_SUCH_RECIPIENT,
        "qmail, Exim, Postfix and Yahoo answer in these words, some without an enhanced code",
        _RCPT,
        words=r"(?<!sender )(user|mailbox|recipient|address|account)( name)? "
        r"(is )?(unknown|not found|does(n't| not) exist)|"
        r"(no such|unknown|invalid|non-?existent) (user|mailbox|recipient|local part)",
    ),
    # Enhanced codes that mean the same at every stage.
    Row("*.2.2", "mailbox full", _FULL, _ENHANCED),
    Row("5.2.3", "message longer than this mailbox takes", CONTENT, _ENHANCED),
    Row("5.3.4", "message too big for the system", CONTENT, _ENHANCED),
    Row("552", "message too large", CONTENT, _SMTP, _LARGE),
    Row("5.7.3", "login or TLS needed", ACCOUNT, _ENHANCED),
    Row("5.7.8", "credentials refused", ACCOUNT, _AUTH),
    Row("5.7.9", "authentication mechanism too weak", ACCOUNT, _AUTH),
    Row("5.7.11", "encryption needed", ACCOUNT, _AUTH),
    Row("5.7.13", "account disabled", ACCOUNT, "RFC 5248 registry: X.7.13"),
    Row("5.7.14", "trust relationship needed", ACCOUNT, "RFC 5248 registry: X.7.14"),
    Row("5.7.20", "no passing DKIM signature", ACCOUNT, "RFC 7372 section 3.1"),
    Row("5.7.21", "no acceptable DKIM signature", ACCOUNT, "RFC 7372 section 3.1"),
    Row("5.7.22", "no DKIM signature of the author", ACCOUNT, "RFC 7372 section 3.1"),
    Row("5.7.23", "SPF failed", ACCOUNT, "RFC 7372 section 3.2"),
    Row("5.7.24", "SPF could not be checked", ACCOUNT, "RFC 7372 section 3.2"),
    Row("5.7.25", "reverse DNS failed", ACCOUNT, "RFC 7372 section 3.3"),
    Row("5.7.26", "several authentication checks failed", ACCOUNT, "RFC 7372 section 3.4"),
    Row("5.7.27", "our sender domain takes no mail (null MX)", ACCOUNT, "RFC 7505 section 4.2"),
    Row("5.7.28", "too much mail from us", _TOO_FAST, "RFC 5248 registry: X.7.28"),
    Row("5.7.57", "not authenticated to send", ACCOUNT, "Exchange Online NDR list"),
    Row("5.7.60", "no permission to send as this sender", ACCOUNT, "Exchange Online NDR list"),
    # A refused sender is our fault, whatever the code.
    Row("5**", "our sender is refused", ACCOUNT, "RFC 5321 section 3.3", _MAIL),
    # Enhanced codes about the recipient.
    Row("5.1.1", "no such mailbox", NO_SUCH_RECIPIENT, _ENHANCED),
    Row("5.1.2", "no such domain", NO_SUCH_RECIPIENT, _ENHANCED),
    Row("5.1.3", "address is malformed", NO_SUCH_RECIPIENT, _ENHANCED),
    Row("5.1.6", "mailbox moved, no forwarding", NO_SUCH_RECIPIENT, _ENHANCED),
    Row("5.1.7", "our sender address is malformed", ACCOUNT, _ENHANCED),
    Row("5.1.8", "our sender domain is refused", ACCOUNT, _ENHANCED),
    Row("5.1.10", "domain takes no mail (null MX)", NO_SUCH_RECIPIENT, "RFC 7505 section 4.1"),
    Row("5.1.*", "address refused", BAD_RECIPIENT, _ENHANCED),
    Row("5.2.1", "mailbox disabled", NO_SUCH_RECIPIENT, _ENHANCED),
    Row("5.2.*", "mailbox does not take it", UNREACHABLE, _ENHANCED),
    Row("5.4.*", "cannot be routed to the recipient", UNREACHABLE, _ENHANCED),
    Row("5.6.7", "non-ASCII address not permitted", BAD_RECIPIENT, "RFC 6531 section 3.4"),
    Row("5.6.*", "content refused", CONTENT, _ENHANCED),
    Row("5.7.*", "policy refuses the content", CONTENT, _ENHANCED, _BODY),
    Row("5.7.*", "policy refuses mail to this recipient", REFUSED, _ENHANCED),
    Row("4.7.0", "too fast, or reputation", _TOO_FAST, "Gmail SMTP errors: 421 4.7.0"),
    Row("4.7.28", "too fast", _TOO_FAST, "Gmail SMTP errors: 421 4.7.28"),
    Row("4.7.*", "policy: later", _GREYLISTED, "RFC 3463 section 3.8; many servers greylist with 4.7.1"),
    # Basic codes.
    Row("452", "mailbox full", _FULL, _SMTP, _RCPT, words=r"quota|full|storage"),
    Row("4**", "temporary failure", UNAVAILABLE, _SMTP),
    Row("550", "mailbox unavailable", BAD_RECIPIENT, _SMTP, _RCPT),
    Row("551", "user not local", BAD_RECIPIENT, _SMTP, _RCPT),
    Row("552", "mailbox full", _FULL, _SMTP, _RCPT),
    Row("553", "mailbox name not allowed", BAD_RECIPIENT, _SMTP, _RCPT),
    Row("501", "address is malformed", BAD_RECIPIENT, _SMTP, _RCPT),
    Row("521", "host takes no mail", UNREACHABLE, "RFC 7504 section 3"),
    Row("556", "domain takes no mail", NO_SUCH_RECIPIENT, "RFC 7504 section 4", _RCPT),
    Row("5**", "refused", REFUSED, _SMTP),
)

_ENHANCED_CODE = re.compile(r"([245])\.\d{1,3}\.\d{1,3}(?![\d.])")


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's reply, read."""

    #: Three digits; anything else means that it does not speak SMTP.
    basic: str
    #: RFC 3463, or empty where the server gives none or one that contradicts the basic code.
    enhanced: str
    #: Its words, without the enhanced code.
    text: str

    @property
    def code(self) -> str:
        """For the record: "550 5.1.1"."""
        return f"{self.basic} {self.enhanced}".strip()


def read_answer(basic: int, text: str) -> Answer:
    """Take a reply apart. `text` may have several lines; each may repeat the enhanced code."""
    found = _ENHANCED_CODE.match(text)
    if not found or found[1] != str(basic)[:1]:
        return Answer(str(basic), "", text)
    lines = [line.removeprefix(found[0]).strip() for line in text.splitlines()]
    return Answer(str(basic), found[0], " ".join(lines))


def judge(stage: Stage, answer: Answer, *, recipient: str = "", ours: Collection[str] = ()) -> Verdict:  # noqa: ARG001
    """What a refusal means. `recipient` is whom the mail went to, `ours` are addresses of ours in it: an answer
    that names one of them is about the sender, and suppresses nobody.

    An answer that is no refusal (2xx or 3xx where none belongs, or no SMTP at all) leaves the outcome unknown once
    the body was sent; before that it only means a server that does not work.
    """
    if any(address.lower() in answer.text.lower() for address in ours):
        return SENDER_REFUSED
    for row in TABLE:
        if row.fits(stage, answer.basic, answer.enhanced, answer.text):
            return row.verdict
    return UNKNOWN if stage is Stage.BODY else UNAVAILABLE


#: How servers name the message that they took, in the order tried. Source: their manuals and source code.
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
    """The server's own id of a message that it took, from the text of its 250; where it names none, its words."""
    words = read_answer(250, text).text.strip()
    for pattern in _QUEUE_IDS:
        found = pattern.search(words)
        if found:
            return found[1]
    return words[:100]
