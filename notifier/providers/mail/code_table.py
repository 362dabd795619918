"""The table of SMTP answers: an ordered list in which the first row that fits decides.

If a server gives both codes ("550 5.1.1"), the enhanced code (RFC 3463) says more than the basic one (RFC 5321),
so enhanced codes come first. Before them are a few rows that match the server's text, because servers use one code
for several things: "550 5.7.1" is a relay that does not know us, a spam filter or a closed mailing list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from notifier.domain.statuses import Outcome, Reason, Subject
from notifier.providers.outcomes import (
    ACCOUNT,
    BAD_RECIPIENT,
    CONTENT,
    NO_SUCH_RECIPIENT,
    NOT_FOR_RECIPIENT,
    REFUSED,
    SENDER_REFUSED,
    SENDER_REFUSED_HERE,
    THROTTLED,
    UNAVAILABLE,
    UNREACHABLE,
    Verdict,
)


class Stage(StrEnum):
    """A step of the SMTP dialogue. What an answer means depends on the command that it answers."""

    CONNECT = "connect"  #: TCP, greeting, EHLO, TLS
    AUTH = "auth"  #: login
    MAIL = "mail"  #: MAIL FROM
    RCPT = "rcpt"  #: RCPT TO
    DATA = "data"  #: the command DATA, before 354
    BODY = "body"  #: after 354; if the answer is lost from here on, the outcome is unknown


#: RFC 6647 section 5 lets a server greylist for a minute to a day. Five minutes is the default of postgrey.
GREYLIST_SECONDS = 300.0
#: RFC 5321 section 4.5.4.1: two tries of one destination should be at least 30 minutes apart.
MAILBOX_FULL_SECONDS = 1800.0

_LATER = Reason.PROVIDER_UNAVAILABLE
_GREYLISTED = Verdict(Outcome.UNAVAILABLE, _LATER, Subject.RECIPIENT, retry_after_seconds=GREYLIST_SECONDS)
_TOO_FAST = Verdict(
    Outcome.THROTTLED, Reason.PROVIDER_THROTTLED, Subject.PROVIDER, retry_after_seconds=GREYLIST_SECONDS
)
FULL = Verdict(
    Outcome.UNAVAILABLE,
    Reason.UNREACHABLE_RECIPIENT,
    Subject.RECIPIENT,
    retry_after_seconds=MAILBOX_FULL_SECONDS,
)
#: A temporary refusal that is not the fault of the server we talk to.
NOT_NOW = Verdict(Outcome.UNAVAILABLE, _LATER, Subject.RECIPIENT)


@dataclass(frozen=True, slots=True)
class SmtpCodeRow:
    #: "5.1.1", "5.1.*" and "5.*.*" match the enhanced code; "550" and "5**" match the basic code.
    code: str
    meaning: str
    verdict: Verdict
    source: str
    #: The steps at which the row applies; empty: all.
    stages: tuple[Stage, ...] = ()
    #: Regular expression that must match in the server's text, ignoring case; empty: any text.
    words: str = ""

    def fits(self, stage: Stage, basic: str, enhanced: str, text: str) -> bool:
        return (
            (not self.stages or stage in self.stages)
            and (_matches(self.code, enhanced) if "." in self.code else _matches(self.code, basic))
            and (not self.words or re.search(self.words, text, re.IGNORECASE) is not None)
        )


#: A short name makes the tables easier to read.
_Row = SmtpCodeRow


def _matches(pattern: str, code: str) -> bool:
    any_number = r"\d+" if "." in pattern else r"\d"
    return re.fullmatch(pattern.replace(".", r"\.").replace("*", any_number), code) is not None


_SMTP = "RFC 5321 section 4.2.3"
_ENHANCED = "RFC 3463 section 3"
_AUTH = "RFC 4954 section 6"
_EXCHANGE = "Exchange Online NDR list"
_RCPT = (Stage.RCPT,)
_MAIL = (Stage.MAIL,)
_BODY = (Stage.DATA, Stage.BODY)
_LARGE = (Stage.MAIL, Stage.DATA, Stage.BODY)
#: After the recipient was named.
LATE = (Stage.RCPT, Stage.DATA, Stage.BODY)

#: Words about the sender of the mail. "sender" alone is not enough: a recipient's policy names senders as well.
_SENDER_WORDS = (
    r"sender(?:'s)?( e?-?mail)?( address| domain| mailbox| user| account| id| verify| verification)* "
    r"(is |was |could )?(rejected|refused|denied|blocked|invalid|unknown|unverified|(not|cannot) (be )?\w+|"
    r"verif\w+|fail\w*|does(n't| not) exist|must exist)|"
    r"(invalid|unknown|unverified|unauthori[sz]ed|forged|bad) (envelope )?sender|"
    r"verification failed for|verif\w+ (of )?(the )?(envelope )?sender|"
    r"send as this sender|(from|return|mail from)\W(address|path|domain)( \S+)? (is )?"
    r"(not \w+|rejected|refused|denied|blocked|invalid|unknown|unverified)|"
    r"\bcall[- ]?(out|back) |remitente|remetente|mittente|expéditeur|expediteur|absender|"
    r"отправител|发件人|寄件人|發件人"
)

TABLE: tuple[SmtpCodeRow, ...] = (
    # Login and greeting: nothing about the message has been said yet, so nothing here may fail the message.
    _Row("530", "authentication required", ACCOUNT, _AUTH),
    _Row("534", "authentication mechanism too weak", ACCOUNT, _AUTH),
    _Row("535", "credentials refused", ACCOUNT, _AUTH),
    _Row("538", "encryption required for authentication", ACCOUNT, _AUTH),
    _Row("432", "a password transition is needed", ACCOUNT, _AUTH),
    _Row("5**", "login refused", ACCOUNT, _AUTH, (Stage.AUTH,)),
    _Row("5**", "the server refuses the connection", UNAVAILABLE, "RFC 5321 section 3.1", (Stage.CONNECT,)),
    # Rows that match the server's text.
    _Row("4**", "greylisted", _GREYLISTED, "RFC 6647 section 2", words=r"gr[ae]y-?\s?list"),
    # Another connection of ours will be free in a moment, when its mail is sent.
    _Row(
        "4**",
        "too many connections at once",
        THROTTLED,
        "Postfix anvil(8), Exchange and Gmail answer in these words",
        words=r"too many (concurrent )?(smtp )?(connections|sessions)",
    ),
    _Row(
        "***",
        "this mailbox gets more mail than it accepts for now",
        FULL,
        "Gmail SMTP errors: 450 4.2.1 and 550 5.2.1",
        _RCPT,
        words=r"receiving mail (at a rate|too (quickly|fast))",
    ),
    _Row(
        "4**",
        "too fast",
        _TOO_FAST,
        "Amazon SES and Postfix anvil(8) answer in these words",
        words=r"throttl|rate.?limit|sending rate|too (many|much) (messages|mail)|daily (message |sending )?quota",
    ),
    _Row(
        "5**",
        "we have sent too much",
        _TOO_FAST,
        "Gmail SMTP errors: 550 5.4.5; Exchange Online and cPanel answer in these words",
        words=r"(daily|hourly|sending|outgoing)( \w+){0,2} (limit|quota|rate)s?( \w+){0,2} (exceeded|reached)|"
        r"exceeded (the |your |its |our )?(daily|hourly|sending|outgoing|max)",
    ),
    _Row(
        "5**",
        "the address that we connect from is blocked",
        ACCOUNT,
        "Postfix and Exim answer in these words where they ask a block list",
        (Stage.MAIL, Stage.RCPT),
        words=r"client host .{0,100}(blocked|rejected|refused|denied)|blocked using|"
        r"(ip|host)( address)? .{0,60}(is |been )?(block|black|deny)-?list|reverse (dns|hostname)|no ptr",
    ),
    _Row(
        "5**",
        "a restricted recipient: this sender is not on its list",
        NOT_FOR_RECIPIENT,
        "Exchange Online NDR list: 5.7.12, 5.7.124 and 5.7.133 to 5.7.136",
        _RCPT,
        words=r"(group|recipient|mailbox).{0,60}(only accepts|restricted|requires)|allowed.senders list|"
        r"RESOLVER\.RST\.",
    ),
    _Row(
        "5**",
        "our sender is not verified",
        SENDER_REFUSED,
        "Amazon SES answers in these words, also of the recipient, whom it names then",
        words=r"address(es)? (is|are) not verified|following identities failed",
    ),
    _Row(
        "5**",
        "our sender is refused, only after the recipient was named",
        SENDER_REFUSED_HERE,
        "Postfix and Exim check senders at RCPT, and answer in these words",
        LATE,
        words=_SENDER_WORDS,
    ),
    _Row(
        "5**",
        "the relay does not know us",
        ACCOUNT,
        "Postfix, Exim and Exchange answer in these words",
        words=r"relay(ing)? (access )?(is )?(denied|not permitted|not allowed|prohibited)|unable to relay|"
        r"not permitted to relay|client was not authenticated|client not authenticated",
    ),
    _Row(
        "5**",
        "mailbox full",
        FULL,
        "Exim, Yahoo and Dovecot answer in these words, some without an enhanced code",
        _RCPT,
        words=r"(mailbox|account|inbox|user|recipient)('s)?( (is|has|storage|disk))* (full|over.?quota)|"
        r"over.?quota|quota (is )?(exceeded|full)|exceed\w* \w*\s?(quota|storage)|mailbox size limit|"
        r"insufficient (disk|storage)|not enough (disk|storage)|storage limit|out of (disk|storage)",
    ),
    _Row(
        "5**",
        "given up after too long",
        UNREACHABLE,
        "Exim, Postfix and qmail report in these words",
        _RCPT,
        words=r"retry time(out)? (was |has )?(exceeded|not reached)|delivery time expired|"
        r"message (has )?(expired|been in the queue|is too old)|maximum time in queue|queue too long",
    ),
    _Row(
        "55*",
        "no such mailbox",
        NO_SUCH_RECIPIENT,
        "qmail, Exim, Postfix and Yahoo answer in these words, some without an enhanced code",
        _RCPT,
        words=r"(?<!sender )(user|mailbox|recipient|address|account)( name)? "
        r"(is )?(unknown|not found|does(n't| not) exist)|"
        r"(no such|unknown|invalid|non-?existent) (user|mailbox|recipient|local part)",
    ),
    # Enhanced codes that mean the same at every step.
    _Row("*.2.2", "mailbox full", FULL, _ENHANCED),
    _Row("5.2.3", "message larger than this mailbox accepts", CONTENT, _ENHANCED),
    _Row("5.3.4", "message too big for the system", CONTENT, _ENHANCED),
    _Row("552", "message too large", CONTENT, _SMTP, _LARGE),
    _Row("5.7.3", "login or TLS needed", ACCOUNT, _ENHANCED),
    _Row("5.7.8", "credentials refused", ACCOUNT, _AUTH),
    _Row("5.7.9", "authentication mechanism too weak", ACCOUNT, _AUTH),
    _Row("5.7.11", "encryption needed", ACCOUNT, _AUTH),
    _Row("5.7.13", "account disabled", ACCOUNT, "RFC 5248 registry: X.7.13"),
    _Row("5.7.14", "trust relationship needed", ACCOUNT, "RFC 5248 registry: X.7.14"),
    _Row("5.7.20", "no passing DKIM signature", SENDER_REFUSED_HERE, "RFC 7372 section 3.1"),
    _Row("5.7.21", "no acceptable DKIM signature", SENDER_REFUSED_HERE, "RFC 7372 section 3.1"),
    _Row("5.7.22", "no DKIM signature of the author", SENDER_REFUSED_HERE, "RFC 7372 section 3.1"),
    _Row("5.7.23", "SPF failed", SENDER_REFUSED_HERE, "RFC 7372 section 3.2"),
    _Row("5.7.24", "SPF could not be checked", SENDER_REFUSED_HERE, "RFC 7372 section 3.2"),
    _Row("5.7.25", "reverse DNS failed", ACCOUNT, "RFC 7372 section 3.3"),
    _Row("5.7.26", "several authentication checks failed", SENDER_REFUSED_HERE, "RFC 7372 section 3.4"),
    _Row("5.7.27", "our sender domain accepts no mail (null MX)", SENDER_REFUSED_HERE, "RFC 7505 section 4.2"),
    _Row("5.7.28", "too much mail from us", _TOO_FAST, "RFC 5248 registry: X.7.28"),
    _Row("5.7.57", "not authenticated to send", ACCOUNT, _EXCHANGE),
    _Row("5.7.60", "no permission to send as this sender", SENDER_REFUSED, _EXCHANGE),
    _Row("5.7.501", "our account is blocked for spam", ACCOUNT, _EXCHANGE),
    _Row("5.7.502", "our account is blocked for spam", ACCOUNT, _EXCHANGE),
    _Row("5.7.503", "our account is blocked for spam", ACCOUNT, _EXCHANGE),
    _Row("5.7.708", "our address or tenant is blocked", ACCOUNT, _EXCHANGE),
    _Row("5.7.750", "our sender domain is not registered", SENDER_REFUSED, _EXCHANGE),
    # A refusal at MAIL, before there is a recipient, is about our sender, whatever the code.
    _Row("5**", "our sender is refused", SENDER_REFUSED, "RFC 5321 section 3.3", _MAIL),
    # Enhanced codes about an address.
    _Row("5.1.1", "no such mailbox", NO_SUCH_RECIPIENT, _ENHANCED),
    _Row("5.1.2", "no such domain", NO_SUCH_RECIPIENT, _ENHANCED),
    _Row("5.1.3", "address is malformed", NO_SUCH_RECIPIENT, _ENHANCED),
    _Row("5.1.6", "mailbox moved, no forwarding", NO_SUCH_RECIPIENT, _ENHANCED),
    _Row("5.1.7", "our sender address is malformed", SENDER_REFUSED_HERE, _ENHANCED),
    _Row("5.1.8", "our sender domain is refused", SENDER_REFUSED_HERE, _ENHANCED),
    _Row("5.1.10", "domain accepts no mail (null MX)", NO_SUCH_RECIPIENT, "RFC 7505 section 4.1"),
    _Row("5.1.*", "address refused", BAD_RECIPIENT, _ENHANCED),
    _Row("5.2.1", "mailbox disabled", NO_SUCH_RECIPIENT, _ENHANCED),
    _Row("5.2.*", "mailbox does not accept it", UNREACHABLE, _ENHANCED),
    _Row("5.4.*", "cannot be routed to the recipient", UNREACHABLE, _ENHANCED),
    _Row("5.6.7", "non-ASCII address not permitted", BAD_RECIPIENT, "RFC 6531 section 3.4"),
    _Row("5.6.*", "content refused", CONTENT, _ENHANCED),
    _Row("5.7.*", "policy refuses the content", CONTENT, _ENHANCED, _BODY),
    _Row("5.7.*", "policy refuses mail to this recipient", NOT_FOR_RECIPIENT, _ENHANCED),
    # A server that accepted MAIL works. Its answers from here on are about this mailbox, even if it then closes
    # the connection.
    _Row("4.1.*", "address: temporary failure", NOT_NOW, _ENHANCED, LATE),
    _Row("4.2.*", "mailbox: temporary failure", NOT_NOW, _ENHANCED, LATE),
    _Row("4.4.2", "the server waited too long for us", UNAVAILABLE, "Postfix answers so to a slow client", LATE),
    _Row("4.4.*", "routing to the recipient: temporary failure", NOT_NOW, _ENHANCED, LATE),
    _Row("4.7.0", "too fast, or reputation", _TOO_FAST, "Gmail SMTP errors: 421 4.7.0"),
    _Row("4.7.28", "too fast", _TOO_FAST, "Gmail SMTP errors: 421 4.7.28"),
    _Row(
        "4.7.*", "policy: temporary refusal", _GREYLISTED, "RFC 3463 section 3.8; many servers greylist with 4.7.1"
    ),
    # Basic codes.
    _Row("452", "mailbox full", FULL, _SMTP, _RCPT, words=r"quota|full|storage"),
    _Row("421", "the server closes the connection", UNAVAILABLE, _SMTP),
    _Row("4**", "temporary failure, after the recipient was named", NOT_NOW, _SMTP, _RCPT),
    _Row("4**", "temporary failure", UNAVAILABLE, _SMTP),
    _Row("550", "mailbox unavailable", BAD_RECIPIENT, _SMTP, _RCPT),
    _Row("551", "user not local", BAD_RECIPIENT, _SMTP, _RCPT),
    _Row("552", "mailbox full", FULL, _SMTP, _RCPT),
    _Row("553", "mailbox name not allowed", BAD_RECIPIENT, _SMTP, _RCPT),
    _Row("501", "address is malformed", BAD_RECIPIENT, _SMTP, _RCPT),
    _Row("521", "host accepts no mail", UNREACHABLE, "RFC 7504 section 3"),
    _Row("556", "domain accepts no mail", NO_SUCH_RECIPIENT, "RFC 7504 section 4", _RCPT),
    _Row("5**", "refused, after the recipient was named", NOT_FOR_RECIPIENT, _SMTP, _RCPT),
    _Row("5**", "refused", REFUSED, _SMTP),
)
