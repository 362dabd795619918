"""What a mail that came back says, once it is read. Everything in it was written by strangers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from notifier.providers.mail.code_table import Stage
from notifier.providers.mail.codes import SmtpReply


class Action(StrEnum):
    """What became of the mail, in the words of RFC 3464 section 2.3.3 and one more; the most serious first."""

    FAILED = "failed"  #: given up
    EXPIRED = "expired"  #: given up after it was tried for long; SendGrid has this word
    DELAYED = "delayed"  #: not yet; tried again
    DELIVERED = "delivered"  #: arrived
    RELAYED = "relayed"  #: handed on to somewhere that sends no reports
    EXPANDED = "expanded"  #: delivered to an alias with several recipients


@dataclass(frozen=True, slots=True)
class Bounce:
    """A delivery report."""

    action: Action
    #: What the server that refused it said. Its text is raw: it may name people.
    answer: SmtpReply
    #: The name of that server; "" if the report does not say.
    remote: str = ""
    occurred_at: datetime | None = None
    #: Whom it names, as somebody wrote it; "" if nobody.
    recipient: str = ""
    #: Everybody whom it names as a recipient, in the spellings in which one may read it. More than one: an alias.
    named: tuple[str, ...] = ()
    #: For how many recipients it tells what became of the mail.
    targets: int = 1
    #: The reporting server's own code; "" if it gives none. Often a default.
    status: str = ""
    #: Whether the words of `answer` are a server's answer that the report quotes.
    is_quoted: bool = True
    #: In answer to what it was refused, as far as the report tells.
    stage: Stage = Stage.RCPT
    #: A person wrote it, or it lay in a mail within the mail: it may be about any mail.
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Complaint:
    """Somebody marked a mail as spam."""

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
    report: Bounce | Complaint | None = None
    #: It is no report, and a program answered it: out of office, a read receipt, a challenge.
    is_reply: bool = False
