"""One client of the local mail server: the SMTP dialogue (RFC 5321) as a protocol of callbacks, for speed."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import re
from collections.abc import Callable
from typing import Protocol, cast

from notifier.dev.smtp_faults import Faults, Rule, Stage
from notifier.dev.smtp_options import MailServerOptions

#: RFC 5321 section 4.5.3.1 asks for 512 octets in a command; AUTH and SMTPUTF8 need more (RFC 4954 section 4).
_MAX_COMMAND = 12_288
_PATH = re.compile(r"\s*<([^<>\s]*)>(?:\s+(.*))?", re.DOTALL)
_SIZE = re.compile(r"(?:^|\s)SIZE=(\d+)", re.IGNORECASE)

Replied = Callable[[], None]


class SmtpHost(Protocol):
    """What a session needs of its server."""

    options: MailServerOptions
    faults: Faults

    def joined(self, session: SmtpSession) -> bool:
        """Count a connection. Returns whether it may stay."""
        ...

    def left(self, session: SmtpSession) -> None:
        """Forget a connection."""
        ...

    def keep(self, mail_from: str, rcpt_to: tuple[str, ...], content: bytes) -> str:
        """Keep a mail. Returns its queue id."""
        ...


class SmtpSession(asyncio.Protocol):
    """From the greeting to the end of the connection."""

    def __init__(self, server: SmtpHost) -> None:
        self._server = server
        self._options = server.options
        self._transport: asyncio.Transport | None = None
        self._input = bytearray()
        self._output: list[bytes] = []
        #: Set while a delayed or a never-coming answer is due: what the client says meanwhile waits.
        self._paused = False
        self._in_body = False
        #: No end of the body before this offset of the input: a long one is not searched again for each packet.
        self._searched = 0
        self._body_rule: Rule | None = None
        self._login: Callable[[bytes], None] | None = None
        self._user: str | None = None
        self._greeted = False
        self._encrypted = False
        self._mail_from: str | None = None
        self._recipients: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", transport)
        self._encrypted = transport.get_extra_info("sslcontext") is not None
        if self._server.joined(self):
            self._answer("connect", f"220 {self._options.hostname} ESMTP notifier local mail server")
        else:
            self._say("421 4.7.0 too many connections from your address")
            self._hang_up()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take what came, and answer all of it in one write."""
        self._input += data
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        self._transport = None
        for timer in self._timers:
            timer.cancel()
        self._server.left(self)

    def close(self) -> None:
        """Close at once. What came is not even read: the next mail may stand behind the one without an answer."""
        if self._transport is not None:
            self._transport.abort()
        self._paused = True

    # Reading.

    def _advance(self) -> None:
        while not self._paused and self._transport is not None:
            if not (self._take_body() if self._in_body else self._take_line()):
                break
        self._flush()

    def _take_line(self) -> bool:
        end = self._input.find(b"\n")
        if end < 0:
            if len(self._input) > _MAX_COMMAND:
                self._say("500 5.5.2 line too long")
                self._hang_up()
            return False
        line = bytes(self._input[: end + 1]).rstrip(b"\r\n")
        del self._input[: end + 1]
        if self._login is not None:
            login, self._login = self._login, None
            login(line)
        else:
            self._command(line)
        return True

    def _take_body(self) -> bool:
        if self._body_rule is not None and self._body_rule.action == "close_mid_data":
            if self._input:
                self.close()
            return False
        if self._input.startswith(b".\r\n"):
            end = 0
        else:
            found = self._input.find(b"\r\n.\r\n", self._searched)
            if found < 0:
                self._searched = max(0, len(self._input) - 4)
                self._drop_oversized()
                return False
            end = found + 2
        content = bytes(self._input[:end])
        del self._input[: end + 3]
        self._in_body = False
        self._end_body(content)
        return True

    def _drop_oversized(self) -> None:
        if len(self._input) > 2 * self._options.max_size:
            self._say("552 5.3.4 message too big")
            self._hang_up()

    # Answering.

    def _say(self, reply: str) -> None:
        self._output.append(reply.encode("utf-8") + b"\r\n")

    def _flush(self) -> None:
        if self._output and self._transport is not None:
            self._transport.write(b"".join(self._output))
        self._output.clear()

    def _hang_up(self) -> None:
        self._flush()
        if self._transport is not None:
            self._transport.close()
        self._paused = True

    def _answer(
        self,
        stage: Stage,
        reply: str,
        *,
        addresses: tuple[str, ...] = ("",),
        rule: Rule | None = None,
        on_success: Replied | None = None,
    ) -> None:
        """Answer as the rules say, `reply` if they say nothing, and do `on_success` unless that is a refusal."""
        rule = rule or self._server.faults.find(stage, addresses)
        if rule is None:
            self._finish(reply, on_success)
        elif rule.delay_seconds > 0:
            self._later(rule.delay_seconds, lambda: self._obey(rule, reply, on_success))
        else:
            self._obey(rule, reply, on_success)

    def _obey(self, rule: Rule, reply: str, on_success: Replied | None) -> None:
        if rule.action in ("close_before_reply", "close_mid_data"):
            self._flush()
            self.close()
        elif rule.action == "silent":
            self._paused = True
        else:
            self._finish(rule.reply or reply, on_success)

    def _finish(self, reply: str, on_success: Replied | None) -> None:
        self._say(reply)
        if reply.startswith("421"):
            self._hang_up()
        elif on_success is not None and reply[:1] in "23":
            on_success()

    def _later(self, seconds: float, then: Callable[[], None]) -> None:
        self._flush()
        self._paused = True

        def resume() -> None:
            self._timers.discard(timer)
            self._paused = False
            then()
            self._advance()

        timer = asyncio.get_running_loop().call_later(seconds, resume)
        self._timers.add(timer)

    # Commands.

    def _command(self, line: bytes) -> None:
        verb, _, rest = line.decode("utf-8", "surrogateescape").partition(" ")
        handler = _COMMANDS.get(verb.upper())
        if handler is None:
            self._say("500 5.5.2 command not recognized")
        else:
            handler(self, rest)

    def _ehlo(self, rest: str) -> None:
        self._forget()
        lines = [f"{self._options.hostname} greets {rest.strip() or 'you'}", *self._extensions()]
        reply = "\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"])
        self._answer("ehlo", reply, on_success=self._set_greeted)

    def _extensions(self) -> list[str]:
        options = self._options
        offers = ["PIPELINING", "8BITMIME", f"SIZE {options.max_size}", "ENHANCEDSTATUSCODES"]
        if options.smtputf8:
            offers.append("SMTPUTF8")
        if options.tls is not None and not self._encrypted:
            offers.append("STARTTLS")
        if options.users:
            offers.append("AUTH PLAIN LOGIN")
        return offers

    def _set_greeted(self) -> None:
        self._greeted = True

    def _helo(self, _rest: str) -> None:
        self._forget()
        self._answer("ehlo", f"250 {self._options.hostname}", on_success=self._set_greeted)

    def _starttls(self, _rest: str) -> None:
        if self._options.tls is None or self._encrypted:
            self._say("454 4.7.0 TLS not available")
            return
        self._say("220 2.0.0 ready to start TLS")
        self._flush()
        self._paused = True
        # RFC 3207 section 4.2: nothing that came before the handshake may count after it.
        self._input.clear()
        self._greeted = False
        self._forget()
        task = asyncio.get_running_loop().create_task(self._upgrade())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _upgrade(self) -> None:
        assert self._transport is not None
        assert self._options.tls is not None
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            upgraded = await loop.start_tls(self._transport, self, self._options.tls, server_side=True)
            self._transport = cast("asyncio.Transport", upgraded)
            self._encrypted = True
            self._paused = False
            self._advance()

    def _auth(self, rest: str) -> None:
        method, _, initial = rest.partition(" ")
        if not self._options.users:
            self._say("503 5.5.1 authentication not enabled")
        elif method.upper() == "PLAIN" and initial:
            self._auth_plain(initial.encode("ascii", "replace"))
        elif method.upper() == "PLAIN":
            self._ask("334 ", self._auth_plain)
        elif method.upper() == "LOGIN" and initial:
            self._auth_login_user(initial.encode("ascii", "replace"))
        elif method.upper() == "LOGIN":
            self._ask("334 VXNlcm5hbWU6", self._auth_login_user)
        else:
            self._say("504 5.5.4 unrecognized authentication type")

    def _ask(self, question: str, then: Callable[[bytes], None]) -> None:
        self._say(question)
        self._login = then

    def _auth_plain(self, encoded: bytes) -> None:
        parts = _decoded(encoded).split("\0")
        user, password = parts[1:] if len(parts) == 3 else ("", "")
        self._check_login(user, password)

    def _auth_login_user(self, encoded: bytes) -> None:
        user = _decoded(encoded)
        self._ask("334 UGFzc3dvcmQ6", lambda secret: self._check_login(user, _decoded(secret)))

    def _check_login(self, user: str, password: str) -> None:
        if user and self._options.users.get(user) == password:
            self._answer("auth", "235 2.7.0 authentication successful", on_success=lambda: self._set_user(user))
        else:
            self._say("535 5.7.8 authentication credentials invalid")

    def _set_user(self, user: str) -> None:
        self._user = user

    def _mail(self, rest: str) -> None:
        path = _argument(rest, "FROM:")
        size = _SIZE.search(path[1]) if path else None
        if not self._greeted:
            self._say("503 5.5.1 say EHLO first")
        elif self._options.users and self._user is None:
            self._say("530 5.7.0 authentication required")
        elif self._mail_from is not None:
            self._say("503 5.5.1 one mail at a time")
        elif path is None:
            self._say("501 5.5.4 syntax: MAIL FROM:<address>")
        elif size and int(size[1]) > self._options.max_size:
            self._say("552 5.3.4 message too big")
        else:
            sender = path[0]
            self._answer("mail", "250 2.1.0 ok", addresses=(sender,), on_success=lambda: self._set_sender(sender))

    def _set_sender(self, sender: str) -> None:
        self._mail_from = sender

    def _rcpt(self, rest: str) -> None:
        path = _argument(rest, "TO:")
        if self._mail_from is None:
            self._say("503 5.5.1 MAIL first")
        elif path is None or not path[0]:
            self._say("501 5.5.4 syntax: RCPT TO:<address>")
        elif len(self._recipients) >= self._options.max_recipients:
            self._say("452 4.5.3 too many recipients")
        else:
            address = path[0]
            accept = self._recipients
            self._answer("rcpt", "250 2.1.5 ok", addresses=(address,), on_success=lambda: accept.append(address))

    def _data(self, _rest: str) -> None:
        if not self._recipients:
            self._say("554 5.5.1 no valid recipients")
            return
        addresses = tuple(self._recipients)
        self._answer("data", "354 end with <CR><LF>.<CR><LF>", addresses=addresses, on_success=self._begin_body)

    def _begin_body(self) -> None:
        self._in_body = True
        self._searched = 0
        self._body_rule = self._server.faults.find("body", self._recipients)

    def _end_body(self, stuffed: bytes) -> None:
        content = stuffed.replace(b"\r\n..", b"\r\n.")
        content = content[1:] if content.startswith(b"..") else content
        mail_from, recipients, rule = self._mail_from or "", tuple(self._recipients), self._body_rule
        self._forget()
        if len(content) > self._options.max_size:
            self._say("552 5.3.4 message too big")
            return
        if rule is None:
            self._say(f"250 2.0.0 ok: queued as {self._server.keep(mail_from, recipients, content)}")
            return
        refused = rule.reply is not None and rule.reply[:1] in "45" and rule.action is None
        queued = "" if refused else self._server.keep(mail_from, recipients, content)
        self._answer("body", f"250 2.0.0 ok: queued as {queued}", rule=rule)

    def _forget(self) -> None:
        self._mail_from = None
        self._recipients = []
        self._body_rule = None

    def _rset(self, _rest: str) -> None:
        self._forget()
        self._say("250 2.0.0 ok")

    def _noop(self, _rest: str) -> None:
        self._say("250 2.0.0 ok")

    def _vrfy(self, _rest: str) -> None:
        self._say("252 2.5.2 send it and see")

    def _quit(self, _rest: str) -> None:
        self._say("221 2.0.0 bye")
        self._hang_up()


_COMMANDS: dict[str, Callable[[SmtpSession, str], None]] = {
    "EHLO": SmtpSession._ehlo,
    "HELO": SmtpSession._helo,
    "STARTTLS": SmtpSession._starttls,
    "AUTH": SmtpSession._auth,
    "MAIL": SmtpSession._mail,
    "RCPT": SmtpSession._rcpt,
    "DATA": SmtpSession._data,
    "RSET": SmtpSession._rset,
    "NOOP": SmtpSession._noop,
    "VRFY": SmtpSession._vrfy,
    "QUIT": SmtpSession._quit,
}


def _argument(rest: str, keyword: str) -> tuple[str, str] | None:
    """`FROM:<address> parameters` → (address, parameters)."""
    if rest[: len(keyword)].upper() != keyword:
        return None
    found = _PATH.fullmatch(rest[len(keyword) :])
    return (found[1], found[2] or "") if found else None


def _decoded(encoded: bytes) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return ""
