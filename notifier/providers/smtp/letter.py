"""One mail on its way to the server: how far it came, and what it means that it came no further.

One thing must be exact: on which side of the mail's final dot a failure happened. Before it the mail was surely
not accepted, after it nobody can say. So a letter is at `Stage.BODY` from the moment in which its body is written,
and whatever ends it from then on leaves it unknown, but for a refusal, and a body of which a part never left us.
Where the process dies, whatever the stage, its attempt stands in the record without a result, and is unknown too.

Time. A letter waits for a line no longer than its deadline. On a line it has its deadline once more, from the
moment in which the server can turn to it: that of the writing of its envelope, or, behind another letter, that of
the answer to that one, so that a slow answer to one mail is not laid to the next. If the line ends before the
server has turned to it, it waits anew. In no case does it go on longer than its deadline after `start_by`: soon
after that somebody else may send it.

Eight bits. A mail for a server with 8BITMIME goes out in seven where its line leads to a server without that, and
where the server refuses what it offers to take. It then has nothing of it, so nothing is sent twice.
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

#: What the server said in EHLO, in lower case, with its words.
Extensions = dict[str, str]
#: A server does not understand a command, or what stands behind it (RFC 5321 section 4.2.3).
_SYNTAX = (500, 501, 502, 503, 504, 555)
#: The server cannot take this kind of content, or not convert it (RFC 3463 section 3.7).
_NO_CONVERSION = ("5.6.1", "5.6.2", "5.6.3")


class Letter:
    """A mail and its call, which it ends exactly once."""

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
        """`in_7bit` composes the mail again, if it needs 8BITMIME and its server cannot take it."""
        self._call = call
        self._in_7bit = in_7bit
        self._mail = mail
        self._from, self._to = mail.mail_from.encode(), mail.rcpt_to.encode()
        self._deadline_seconds = deadline_seconds
        #: The command that the server has to answer next; None while it waits for a line.
        self.stage: Stage | None = None
        #: Whether its outcome was told.
        self.is_over = False
        #: It waits for a line until then, on the monotonic clock.
        self.waits_until = time.monotonic() + deadline_seconds

    def end(self, answer: Receipt | SendError) -> None:
        """Tell the outcome."""
        self.is_over = True
        self._call.end(answer)

    def begins(self, extensions: Extensions) -> bool:
        """Whether it goes on a line to this server now; if it must not any more, or cannot, it is over."""
        if self._mail.needs_8bit and "8bitmime" not in extensions:
            self._mail = self._in_7bit()
        hindrance = self._call.begin() or self._objection(extensions)
        if hindrance is not None:
            self.end(hindrance)
            return False
        self.stage = Stage.MAIL
        return True

    def wait_anew(self) -> None:
        """Its line ended before the server had turned to it."""
        self.stage = None
        self.waits_until = self.must_end_at(time.monotonic())

    def must_end_at(self, now: float) -> float:
        """When it ends, if the server turns to it now."""
        return min(now, self._call.start_by) + self._deadline_seconds

    def commands(self, extensions: Extensions) -> tuple[bytes, bytes, bytes]:
        """MAIL, RCPT, DATA."""
        size = b" SIZE=%d" % len(self._mail.content) if "size" in extensions else b""
        utf8 = b" SMTPUTF8" if self._mail.needs_smtputf8 else b""
        body = b" BODY=8BITMIME" if self._mail.needs_8bit else b""
        mail = b"MAIL FROM:<%s>%s%s%s\r\n" % (self._from, size, utf8, body)
        return mail, b"RCPT TO:<%s>\r\n" % self._to, b"DATA\r\n"

    def body(self) -> bytes:
        """Dot-stuffed (RFC 5321 section 4.5.2), with the final dot."""
        content = self._mail.content
        if b"\n." in content:
            content = content.replace(b"\n.", b"\n..")
        # It has CRLF at the end of every line.
        return content + b".\r\n"

    def turns_to_7bit(self, reply: Reply) -> bool:
        """Whether it can go again in 7 bits, because this refusal may be about its eight."""
        if not self._mail.needs_8bit:
            return False
        is_syntax = self.stage is Stage.MAIL and reply.code in _SYNTAX
        if not is_syntax and read_answer(reply.code, reply.text).enhanced not in _NO_CONVERSION:
            return False
        self._mail = self._in_7bit()
        return True

    # What ends it.

    def accepted(self, reply: Reply) -> None:
        """The server has it."""
        words = mail_detail(reply.text, recipient=self._mail.rcpt_to)
        self.end(Receipt(mail_detail(queue_id(reply.text)), f"{reply.code} {words}"))

    def refused(self, reply: Reply) -> None:
        """The server does not want it."""
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
        """What came is no answer to it."""
        if self.stage is Stage.BODY:
            self.end(UNKNOWN.error(f"no SMTP answer to the mail: {mail_detail(words)}"))
        else:
            self.end(UNAVAILABLE.error(f"no SMTP answer to {str(self.stage).upper()}: {mail_detail(words)}"))

    def timed_out(self, *, is_held_back: bool = False) -> None:
        """Its time is over. `is_held_back`: a part of its body is still with us, and will not leave any more."""
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
        """Why this server cannot take it."""
        if self._mail.needs_smtputf8 and "smtputf8" not in extensions:
            verdict = SENDER_REFUSED if self._mail.rcpt_to.isascii() else BAD_RECIPIENT
            return verdict.error("an address with non-ASCII letters before the @, and the server has no SMTPUTF8")
        # RFC 1870 section 6.1: the server's limit; "0" or nothing means that it states none.
        limit = extensions.get("size", "")
        if limit.isdecimal() and 0 < int(limit) < len(self._mail.content):
            return CONTENT.error(f"{len(self._mail.content)} bytes, and the server takes {limit}")
        return None
