"""One SMTP connection, driven by the server's replies: a mail needs no task, no future and no timer of its own.

aiosmtplib connects, encrypts and logs in. From then on a line has the transport, because it does two things that
aiosmtplib's protocol cannot do: have several commands in progress (PIPELINING, RFC 2920), and notice what a server
says unasked, which is usually that it is about to close.

If the server supports pipelining, MAIL, RCPT and DATA go out together, and so do a body and the envelope of the
next letter. When the connection ends, the outcome of the first letter on it depends on its stage (see `letter`).
The letter behind it was certainly not accepted, because a body is only sent after its own 354: it is sent again on
a new line. So is a letter whose MAIL found the connection closed on a line that was not new: the server had enough
of the connection, which says nothing about the mail. So is a letter that was refused for its eight bits.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import Protocol, cast

import aiosmtplib

from notifier.providers.mail.code_table import Stage
from notifier.providers.smtp.letter import Letter
from notifier.providers.smtp.replies import Garbled, Replies, Reply

#: How long a server may take to answer NOOP, RSET or QUIT, or the remaining commands of a mail that it has
#: refused.
_ANSWER_SECONDS = 2.0
#: A larger body is sent by itself: if it gets stuck, what follows must not be taken for a part of it.
_LARGE = 65_536
_OK = (250, 251)
#: The answer to DATA: the server is ready for the body.
_START_INPUT = 354
#: The server closes the connection.
_CLOSING = 421
#: At MAIL, on a line that has carried other letters: an idle time-out, enough mails on one connection, or a server
#: that has not finished the previous mail. It says nothing about this mail.
_NOT_HERE = (_CLOSING, 503)
_STAGES = (Stage.MAIL, Stage.RCPT, Stage.DATA)


class Post(Protocol):
    """The source of a line's letters."""

    def clears(self, line: SmtpLine) -> None:
        """The line will soon be free: the server only has to answer what is left of a letter that has ended."""
        ...

    def free(self, line: SmtpLine) -> None:
        """The line can carry the next letter."""
        ...

    def next_behind(self, line: SmtpLine) -> Letter | None:
        """A letter whose envelope may be sent behind a body; None: there is none."""
        ...

    def took(self, seconds: float) -> None:
        """The server took so many seconds for a letter."""
        ...

    def send_again(self, letter: Letter) -> None:
        """The letter has to be sent on another, new line."""
        ...

    def watch(self, due: float) -> None:
        """Call `overdue` at this time."""
        ...

    def left(self, line: SmtpLine) -> None:
        """The line is closed."""
        ...


class SmtpLine(asyncio.Protocol):
    """A connection from its opening to its end. It carries one letter, and the envelope of the next behind it."""

    def __init__(self, smtp: aiosmtplib.SMTP, post: Post) -> None:
        self.extensions = dict(smtp.esmtp_extensions)
        self.opened_at = self.used_at = time.monotonic()
        #: How many letters have begun on it.
        self.letters = 0
        #: True until it has been idle or has received the answer to a letter.
        self.is_new = True
        #: The server still holds half a mail, and needs RSET before the next one.
        self.needs_reset = False
        #: When the reply that it waits for is overdue, on the monotonic clock.
        self.due = math.inf
        self._pipelines = "pipelining" in self.extensions
        self._transport = cast("asyncio.Transport", smtp.transport)
        self._post = post
        self._replies = Replies()
        #: What the server has to answer, in order; None: a command that belongs to no letter.
        self._asked: deque[Letter | None] = deque()
        self._letter: Letter | None = None
        self._behind: Letter | None = None
        #: When the server could turn to the letter.
        self._since = 0.0
        self._goodbye: asyncio.Future[None] | None = None
        self._is_over = False
        self._transport.set_protocol(self)

    @property
    def is_usable(self) -> bool:
        """Whether the connection is open."""
        return not self._is_over and not self._transport.is_closing()

    def carry(self, letter: Letter) -> None:
        """Begin with this letter: nothing else is on the line, and no reply is outstanding."""
        self.letters += 1
        commands = letter.commands(self.extensions)
        if self._pipelines:
            self._write(b"".join(commands), letter, letter, letter)
        else:
            self._write(commands[0], letter)
        self._turn_to(letter)

    def check(self) -> None:
        """Find out whether the connection still works, and clear what the server holds of a refused mail. Then the
        line is free."""
        self._write(b"RSET\r\n" if self.needs_reset else b"NOOP\r\n", None)
        self._wait_until(time.monotonic() + _ANSWER_SECONDS)

    def rest(self, until: float) -> None:
        """Stay idle: no letter waits. The line is retired at this time at the latest."""
        self.is_new = False
        self._wait_until(until)

    def retire(self) -> None:
        """Send QUIT and close without waiting for the answer, as Postfix does (smtp_skip_quit_response)."""
        self._is_over = True
        if not self._transport.is_closing():
            self._transport.write(b"QUIT\r\n")
        self._transport.close()
        self._post.left(self)

    async def quit(self) -> None:
        """Send QUIT, wait a moment for the answer, and close the connection."""
        self._goodbye = asyncio.get_running_loop().create_future()
        self._write(b"QUIT\r\n", None)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._goodbye
        except TimeoutError:
            pass
        self.drop()

    def overdue(self) -> None:
        """Handle a reply that did not come in time."""
        letter = self._letter
        if letter is not None and not letter.is_over:
            # With an envelope behind it, nobody can tell how much of the body is left; but then the body was not
            # large.
            is_held_back = self._behind is None and self._transport.get_write_buffer_size() > 0
            letter.timed_out(is_held_back=is_held_back)
        self.drop()

    def drop(self) -> None:
        """Close the connection at once, and end the letters on it accordingly. Unlike `close`, abort throws away
        what was written but not sent: a mail that we report as unsent must not be sent afterwards."""
        if self._is_over:
            return
        self._is_over = True
        self._transport.abort()
        letter, behind = self._letter, self._behind
        self._letter = self._behind = None
        if letter is not None and not letter.is_over:
            if letter.stage is Stage.MAIL and not self.is_new:
                self._post.send_again(letter)
            else:
                letter.lost()
        if behind is not None:
            self._post.send_again(behind)
        if self._goodbye is not None and not self._goodbye.done():
            self._goodbye.set_result(None)
        self._post.left(self)

    # Called by the event loop.

    def data_received(self, data: bytes) -> None:
        """Take a step for each reply."""
        try:
            for reply in self._replies.read(data):
                if self._is_over:
                    return
                self._take(reply)
        except Garbled as garbage:
            self._garbled(str(garbage))

    def connection_lost(self, exc: Exception | None) -> None:
        """The server, the network or an error of ours ended the connection."""
        self.drop()

    # One step of the dialogue each.

    def _take(self, reply: Reply) -> None:
        if not self._asked:
            # An unexpected reply: the server is about to close, or out of step.
            self.drop()
            return
        letter = self._asked.popleft()
        if letter is None:
            self._checked(reply)
        elif letter.is_over:
            self._take_rest(reply)
        elif letter.stage is Stage.BODY:
            self._end_letter(letter, reply)
        elif letter.stage is Stage.DATA and reply.code == _START_INPUT:
            self._send_body(letter)
        elif letter.stage is not Stage.DATA and reply.code in _OK:
            self._go_on(letter)
        elif letter.stage is Stage.MAIL and reply.code in _NOT_HERE and not self.is_new:
            self.drop()
        else:
            self._end_letter(letter, reply)

    def _go_on(self, letter: Letter) -> None:
        """Go on to the letter's next command."""
        assert letter.stage is not None
        number = _STAGES.index(letter.stage) + 1
        letter.stage = _STAGES[number]
        if not self._pipelines:
            self._write(letter.commands(self.extensions)[number], letter)

    def _send_body(self, letter: Letter) -> None:
        if not self._replies.is_empty:
            # It cannot be the answer to a body that was not sent.
            self._garbled("more replies than commands")
            return
        if self._transport.is_closing():
            self.drop()
            return
        body = letter.body()
        behind = self._post.next_behind(self) if self._pipelines and len(body) <= _LARGE else None
        letter.stage = Stage.BODY
        if behind is None:
            self._write(body, letter)
            return
        self._behind = behind
        self.letters += 1
        envelope = b"".join(behind.commands(self.extensions))
        self._write(body + envelope, letter, behind, behind, behind)

    def _end_letter(self, letter: Letter, reply: Reply) -> None:
        """The server accepted or refused the letter."""
        is_accepted = letter.stage is Stage.BODY and reply.code in _OK
        if not is_accepted and letter.turns_to_7bit(reply):
            self._letter = None
            self._post.send_again(letter)
            self.drop()
            return
        # 421 announces that the server closes the connection. We do not understand codes other than 4xx and 5xx.
        goes_on = is_accepted or (400 <= reply.code < 600 and reply.code != _CLOSING)
        if goes_on and not self.is_new:
            # The time of the first mail says little: servers greet and answer slowly at first.
            self._post.took(time.monotonic() - self._since)
        self.is_new = False
        if goes_on and self._behind is None:
            # Before the outcome is reported, because whoever hears of it may send the next letter at once.
            self._post.clears(self)
        if is_accepted:
            letter.accepted(reply)
        else:
            # After a body, the server holds nothing of the mail (RFC 5321 section 4.1.1.4).
            self.needs_reset = self._behind is None
            letter.refused(reply)
        if not goes_on:
            self.drop()
        elif self._behind is not None:
            behind, self._behind = self._behind, None
            self._turn_to(behind)
        elif self._asked:
            self._wait_until(time.monotonic() + _ANSWER_SECONDS)
        else:
            self._become_free()

    def _take_rest(self, reply: Reply) -> None:
        """Take the reply to a command that was sent behind the refused one."""
        if reply.code == _START_INPUT:
            # The server waits for the body of a mail that it has refused. A final dot would send an empty mail.
            self.drop()
        elif not self._asked:
            self._become_free()

    def _checked(self, reply: Reply) -> None:
        """The connection works if the server answers with success."""
        if self._goodbye is not None or reply.code not in _OK:
            self.drop()
            return
        self.needs_reset = False
        self._become_free()

    def _garbled(self, words: str) -> None:
        if self._letter is not None and not self._letter.is_over:
            self._letter.garbled(words)
        self.drop()

    # What it does at each of these steps.

    def _turn_to(self, letter: Letter) -> None:
        self._letter = letter
        self._since = time.monotonic()
        self._wait_until(letter.must_end_at(self._since))

    def _become_free(self) -> None:
        self._letter = None
        if not self._replies.is_empty:
            # This reply is unexpected, and must not be taken for the answer to the next letter.
            self.drop()
            return
        self.used_at = time.monotonic()
        self._post.free(self)

    def _wait_until(self, due: float) -> None:
        self.due = due
        self._post.watch(due)

    def _write(self, data: bytes, *asked: Letter | None) -> None:
        """Send whole lines. The server will answer `asked` in this order."""
        self._asked.extend(asked)
        self._transport.write(data)
