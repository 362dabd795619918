"""One mail on its way to the server: how far it has come, and what a failure at that point means.

One thing must be exact: whether a failure happened before or after the mail's final dot. Before it, the mail was
certainly not accepted. After it, nobody can say. So a letter is at `Stage.BODY` from the moment its body is
written. Whatever ends it from then on leaves the outcome unknown, except a refusal, and a body of which a part
never left this process. If the process dies, at whatever stage, the record has an attempt without a result, and
the outcome is unknown as well.

Time: a letter waits for a line no longer than its deadline. Once on a line, it gets its deadline again, from the
moment at which the server can turn to it. That is when its envelope is written or, behind another letter, when the
server answers that letter, so that a slow answer to one mail is not charged to the next. If the line ends before
the server turned to the letter, the letter waits again. It never goes on longer than its deadline after
`start_by`, because soon after that another worker may send it.

Eight bits: a mail composed for a server with 8BITMIME is sent in seven bits if its line leads to a server without
8BITMIME, or if the server refuses what it offers to take. The server then has nothing of the mail, so nothing is
sent twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from notifier.domain.errors import SendError
from notifier.providers.base import QueuedCall, Receipt
from notifier.providers.mail.code_table import Stage
from notifier.providers.mail.codes import judge, queue_id, read_answer
from notifier.providers.outcomes import BAD_RECIPIENT, CONTENT, SENDER_REFUSED, UNAVAILABLE, UNKNOWN
from notifier.providers.redaction import mail_detail
from notifier.providers.smtp.mime import Mail
from notifier.providers.smtp.replies import Reply

#: The keywords of the server's EHLO answer in lower case, with their parameters.
Extensions = dict[str, str]
#: The server does not understand a command or its parameters (RFC 5321 section 4.2.3).
_SYNTAX = (500, 501, 502, 503, 504, 555)
#: The server cannot take or convert this kind of content (RFC 3463 section 3.7).
_NO_CONVERSION = ("5.6.1", "5.6.2", "5.6.3")


class Letter:
    """A mail and its call. It ends the call exactly once."""

    __slots__ = (
        "_call",
        "_deadline_seconds",
        "_from",
        "_in_7bit",
        "_mail",
        "_to",
        "is_over",
        "stage",
        "waits_until",
    )

    def __init__(
        self, call: QueuedCall, mail: Mail, in_7bit: Callable[[], Mail], *, deadline_seconds: float
    ) -> None:
        """`in_7bit` composes the mail again. It is called if the mail needs 8BITMIME and its server cannot take
        that."""
        self._call = call
        self._in_7bit = in_7bit
        self._mail = mail
        self._from, self._to = mail.mail_from.encode(), mail.rcpt_to.encode()
        self._deadline_seconds = deadline_seconds
        #: The command that the server has to answer next; None while the letter waits for a line.
        self.stage: Stage | None = None
        #: Whether its outcome was reported.
        self.is_over = False
        #: How long it waits for a line, on the monotonic clock.
        self.waits_until = time.monotonic() + deadline_seconds

    def end(self, answer: Receipt | SendError) -> None:
        """Report the outcome."""
        self.is_over = True
        self._call.end(answer)

    def begins(self, extensions: Extensions) -> bool:
        """Whether it can start now on a line to this server. If it cannot, or must not any more, it is over."""
        if self._mail.needs_8bit and "8bitmime" not in extensions:
            self._mail = self._in_7bit()
        hindrance = self._call.begin() or self._objection(extensions)
        if hindrance is not None:
            self.end(hindrance)
            return False
        self.stage = Stage.MAIL
        return True

    def wait_anew(self) -> None:
        """Wait again: its line ended before the server had turned to it."""
        self.stage = None
        self.waits_until = self.must_end_at(time.monotonic())

    def must_end_at(self, now: float) -> float:
        """When it has to end, if the server turns to it now."""
        return min(now, self._call.start_by) + self._deadline_seconds

    def commands(self, extensions: Extensions) -> tuple[bytes, bytes, bytes]:
        """The commands MAIL, RCPT and DATA."""
        size = b" SIZE=%d" % len(self._mail.content) if "size" in extensions else b""
        utf8 = b" SMTPUTF8" if self._mail.needs_smtputf8 else b""
        body = b" BODY=8BITMIME" if self._mail.needs_8bit else b""
        mail = b"MAIL FROM:<%s>%s%s%s\r\n" % (self._from, size, utf8, body)
        return mail, b"RCPT TO:<%s>\r\n" % self._to, b"DATA\r\n"

    def body(self) -> bytes:
        """The body, dot-stuffed (RFC 5321 section 4.5.2), with the final dot."""
        content = self._mail.content
        if b"\n." in content:
            content = content.replace(b"\n.", b"\n..")
        # The content already has CRLF at the end of every line.
        return content + b".\r\n"

    def turns_to_7bit(self, reply: Reply) -> bool:
        """Whether it can be sent again in 7 bits, because this refusal may be about its eight bits."""
        if not self._mail.needs_8bit:
            return False
        is_syntax = self.stage is Stage.MAIL and reply.code in _SYNTAX
        if not is_syntax and read_answer(reply.code, reply.text).enhanced not in _NO_CONVERSION:
            return False
        self._mail = self._in_7bit()
        return True

    # Ways in which it ends.

    def accepted(self, reply: Reply) -> None:
        """The server accepted it."""
        words = mail_detail(reply.text, recipient=self._mail.rcpt_to)
        self.end(Receipt(mail_detail(queue_id(reply.text)), f"{reply.code} {words}"))

    def refused(self, reply: Reply) -> None:
        """The server refused it."""
        assert self.stage is not None
        answer = read_answer(reply.code, reply.text)
        words = mail_detail(answer.text, recipient=self._mail.rcpt_to)
        verdict = judge(self.stage, answer, recipient=self._mail.rcpt_to, ours=self._mail.ours)
        self.end(verdict.error(f"{self.stage.upper()}: {words}", code=answer.code))

    def lost(self) -> None:
        """The connection ended."""
        if self.stage is Stage.BODY:
            self.end(UNKNOWN.error("connection lost after the mail was sent"))
        else:
            self.end(UNAVAILABLE.error(f"connection lost at {str(self.stage).upper()}"))

    def garbled(self, words: str) -> None:
        """What came is not an answer to it."""
        if self.stage is Stage.BODY:
            self.end(UNKNOWN.error(f"no SMTP answer to the mail: {mail_detail(words)}"))
        else:
            self.end(UNAVAILABLE.error(f"no SMTP answer to {str(self.stage).upper()}: {mail_detail(words)}"))

    def timed_out(self, *, is_held_back: bool = False) -> None:
        """Its time is over. `is_held_back`: a part of its body is still in this process, and will not be sent any
        more."""
        within = f"within {self._deadline_seconds:g} s"
        if self.stage is None:
            self.end(UNAVAILABLE.error(f"no free or new connection {within}"))
        elif self.stage is not Stage.BODY:
            self.end(UNAVAILABLE.error(f"no answer to {self.stage.upper()} {within}"))
        elif is_held_back:
            self.end(UNAVAILABLE.error(f"the server did not read the whole mail {within}"))
        else:
            self.end(UNKNOWN.error(f"no answer to the end of the mail {within}"))

    def _objection(self, extensions: Extensions) -> SendError | None:
        """Why this server cannot take it; None: it can."""
        if self._mail.needs_smtputf8 and "smtputf8" not in extensions:
            verdict = SENDER_REFUSED if self._mail.rcpt_to.isascii() else BAD_RECIPIENT
            return verdict.error("an address with non-ASCII letters before the @, and the server has no SMTPUTF8")
        # RFC 1870 section 6.1: the server's limit; "0" or nothing means that it states none.
        limit = extensions.get("size", "")
        if limit.isdecimal() and 0 < int(limit) < len(self._mail.content):
            return CONTENT.error(f"{len(self._mail.content)} bytes, and the server takes {limit}")
        return None
