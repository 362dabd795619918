"""The contents of a mail that came back. All of it was written by strangers."""

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
    #: The answer of the server that refused it. Its text is raw: it may name people.
    answer: SmtpReply
    #: That server's name; "" if the report does not say.
    remote: str = ""
    occurred_at: datetime | None = None
    #: The recipient that it names, as written; "" if none.
    recipient: str = ""
    #: Every recipient that it names, in all possible spellings. More than one: an alias.
    named: tuple[str, ...] = ()
    #: Number of recipients that it reports on.
    targets: int = 1
    #: The reporting server's code, often a default; "" if it gives none.
    status: str = ""
    #: Whether `answer` is quoted from a server.
    is_quoted: bool = True
    #: The command that was refused, as far as the report says.
    stage: Stage = Stage.RCPT
    #: A person wrote it, or it was inside another mail: it may be about any mail.
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Complaint:
    """Somebody marked a mail as spam."""

    #: "abuse".
    kind: str
    #: The mail's recipients, as far as the report says.
    recipients: tuple[str, ...] = ()
    #: Envelope senders of the mail.
    return_paths: tuple[str, ...] = ()
    #: Its Message-ID, without brackets; "" if there is none.
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    report: Bounce | Complaint | None = None
    #: Not a report but an automatic reply: out of office, a read receipt, a challenge.
    is_reply: bool = False
