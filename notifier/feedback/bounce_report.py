"""The contents of a mail that came back, parsed. All of it was written by strangers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from notifier.providers.mail.code_table import Stage
from notifier.providers.mail.codes import SmtpReply


class Action(StrEnum):
    """What became of the mail, in the words of RFC 3464 section 2.3.3 and one more; the most serious first."""

    FAILED = "failed"  #: given up
    EXPIRED = "expired"  #: given up after a long time of trying; SendGrid uses this word
    DELAYED = "delayed"  #: not delivered yet; it is tried again
    DELIVERED = "delivered"  #: arrived
    RELAYED = "relayed"  #: passed on to a server that sends no reports
    EXPANDED = "expanded"  #: delivered to an alias with several recipients


@dataclass(frozen=True, slots=True)
class Bounce:
    """A delivery report."""

    action: Action
    #: The answer of the server that refused the mail. Its text is unchanged and may name people.
    answer: SmtpReply
    #: The refusing server's name; "" if the report does not say.
    remote: str = ""
    occurred_at: datetime | None = None
    #: The recipient in the report, as written; "" if there is none.
    recipient: str = ""
    #: Every recipient in the report, in all possible spellings. More than one: an alias.
    named: tuple[str, ...] = ()
    #: Number of recipients on which it reports.
    targets: int = 1
    #: The reporting server's code, often only its default; "" if it gives none.
    status: str = ""
    #: Whether `answer` is a quotation of a server.
    is_quoted: bool = True
    #: The command that was refused, as far as the report says.
    stage: Stage = Stage.RCPT
    #: A person wrote it, or it was inside another mail, so it may be about any mail.
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Complaint:
    """Somebody marked a mail as spam."""

    #: Such as "abuse".
    kind: str
    #: The mail's recipients, if the report names them.
    recipients: tuple[str, ...] = ()
    #: Envelope senders of the mail.
    return_paths: tuple[str, ...] = ()
    #: The mail's Message-ID, without brackets; "" if there is none.
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    report: Bounce | Complaint | None = None
    #: It is not a report but an automatic reply: out of office, a read receipt, a challenge.
    is_reply: bool = False
