"""One client of the local mail server: the SMTP dialogue (RFC 5321).

It does not use aiosmtpd, which drops a mail if its client closes right after the last byte, has no hooks for most
of the faults, and needs private methods for the rest.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from notifier.dev.faults import Faults
from notifier.dev.smtp_faults import Rule, Stage

#: RFC 5321 section 4.5.3.1 requires 512 octets in a command; AUTH and SMTPUTF8 need more (RFC 4954 section 4).
_MAX_COMMAND = 12_288
_PATH = re.compile(r"\s*<([^<>\s]*)>(?:\s+(.*))?", re.DOTALL)
_SIZE = re.compile(r"(?:^|\s)SIZE=(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MailServerOptions:
    """What the server offers: see RFC 5321, and RFC 6531 for SMTPUTF8."""

    #: What the server calls itself.
    hostname: str = "localhost"
    #: The server's certificate. It then offers STARTTLS, or TLS from the first byte with `implicit_tls`.
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    #: Name → password. If there are any, mail is only accepted after AUTH.
    users: Mapping[str, str] = field(default_factory=dict)
    smtputf8: bool = True
    #: Maximum size of a message, announced with SIZE. Bytes.
    max_size: int = 20 * 1024 * 1024
    #: Maximum recipients in one transaction.
    max_recipients: int = 100


class SmtpSession:
    """A session, from the greeting to the end of the connection."""

    def __init__(
        self,
        options: MailServerOptions,
        faults: Faults[Rule],
        keep: Callable[[str, tuple[str, ...], bytes], str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Create a session. `keep` takes a mail's sender, recipients and content, and returns its queue id."""
        self._options = options
        self._faults = faults
        self._keep = keep
        self._reader = reader
        self._writer = writer
        self._greeted = False
        self._encrypted = options.implicit_tls
        self._authenticated = not options.users
        self._mail_from: str | None = None
        self._recipients: list[str] = []

    async def run(self, *, welcome: bool) -> None:
        """Answer until one side ends the connection. A client that is not `welcome` is sent away."""
        with contextlib.suppress(ConnectionError, EOFError, ssl.SSLError):
            if not welcome:
                await self._hang_up("421 4.7.0 too many connections from your address")
            await self._answer("connect", f"220 {self._options.hostname} ESMTP notifier local mail server")
            while True:
                await self._command(await self._line())

    async def _line(self) -> str:
        try:
            line = await self._reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            line = b""
        if not line or len(line) > _MAX_COMMAND:
            await self._hang_up("500 5.5.2 line too long")
        return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")

    # Answering.

    async def _say(self, reply: str) -> None:
        self._writer.write(reply.encode() + b"\r\n")
        await self._writer.drain()

    async def _hang_up(self, reply: str) -> None:
        await self._say(reply)
        raise ConnectionAbortedError

    async def _answer(
        self, stage: Stage, reply: str, *, addresses: Sequence[str] = ("",), rule: Rule | None = None
    ) -> bool:
        """Answer as the rules say, or with `reply` if they say nothing. Returns whether the answer was
        positive."""
        rule = rule or self._faults.find(*addresses, stage=stage)
        if rule is not None:
            await asyncio.sleep(rule.delay_seconds)
            if rule.action == "silent":
                while await self._reader.read(65_536):
                    pass
            if rule.action is not None:
                self._abort()
            reply = rule.reply or reply
        if reply.startswith("421"):
            await self._hang_up(reply)
        await self._say(reply)
        return reply[:1] in "23"

    def _abort(self) -> None:
        self._writer.transport.abort()
        raise ConnectionAbortedError

    # Commands.

    async def _command(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        match verb.upper():
            case "EHLO":
                await self._greet(f"{self._options.hostname} greets {rest.strip() or 'you'}", *self._extensions())
            case "HELO":
                await self._greet(self._options.hostname)
            case "STARTTLS":
                await self._starttls()
            case "AUTH":
                await self._auth(*rest.partition(" ")[::2])
            case "MAIL":
                await self._mail(rest)
            case "RCPT":
                await self._rcpt(rest)
            case "DATA":
                await self._data()
            case "RSET":
                self._forget()
                await self._say("250 2.0.0 ok")
            case "NOOP":
                await self._say("250 2.0.0 ok")
            case "VRFY":
                await self._say("252 2.5.2 send it and see")
            case "QUIT":
                await self._hang_up("221 2.0.0 bye")
            case _:
                await self._say("500 5.5.2 command not recognized")

    async def _greet(self, *lines: str) -> None:
        self._forget()
        reply = "\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"])
        self._greeted = await self._answer("ehlo", reply) or self._greeted

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

    async def _starttls(self) -> None:
        if self._options.tls is None or self._encrypted:
            await self._say("454 4.7.0 TLS not available")
            return
        # RFC 3207 section 4.2: nothing that came before the handshake may count after it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await self._reader.read(2 * self._options.max_size)
        self._greeted = False
        self._forget()
        await self._say("220 2.0.0 ready to start TLS")
        await self._writer.start_tls(self._options.tls)
        self._encrypted = True

    async def _auth(self, method: str, initial: str) -> None:
        if not self._options.users:
            await self._say("503 5.5.1 authentication not enabled")
        elif method.upper() == "PLAIN":
            parts = _decoded(initial or await self._ask("334 ")).split("\0")
            await self._check_login(*(parts[1:] if len(parts) == 3 else ("", "")))
        elif method.upper() == "LOGIN":
            user = _decoded(initial or await self._ask("334 VXNlcm5hbWU6"))
            await self._check_login(user, _decoded(await self._ask("334 UGFzc3dvcmQ6")))
        else:
            await self._say("504 5.5.4 unrecognized authentication type")

    async def _ask(self, question: str) -> str:
        await self._say(question)
        return await self._line()

    async def _check_login(self, user: str, password: str) -> None:
        if user and self._options.users.get(user) == password:
            accepted = await self._answer("auth", "235 2.7.0 authentication successful")
            self._authenticated = accepted or self._authenticated
        else:
            await self._say("535 5.7.8 authentication credentials invalid")

    async def _mail(self, rest: str) -> None:
        path = _argument(rest, "FROM:")
        size = _SIZE.search(path[1]) if path else None
        if not self._greeted:
            await self._say("503 5.5.1 say EHLO first")
        elif not self._authenticated:
            await self._say("530 5.7.0 authentication required")
        elif self._mail_from is not None:
            await self._say("503 5.5.1 one mail at a time")
        elif path is None:
            await self._say("501 5.5.4 syntax: MAIL FROM:<address>")
        elif size and int(size[1]) > self._options.max_size:
            await self._say("552 5.3.4 message too big")
        elif await self._answer("mail", "250 2.1.0 ok", addresses=path[:1]):
            self._mail_from = path[0]

    async def _rcpt(self, rest: str) -> None:
        path = _argument(rest, "TO:")
        if self._mail_from is None:
            await self._say("503 5.5.1 MAIL first")
        elif path is None or not path[0]:
            await self._say("501 5.5.4 syntax: RCPT TO:<address>")
        elif len(self._recipients) >= self._options.max_recipients:
            await self._say("452 4.5.3 too many recipients")
        elif await self._answer("rcpt", "250 2.1.5 ok", addresses=path[:1]):
            self._recipients.append(path[0])

    async def _data(self) -> None:
        if not self._recipients:
            await self._say("554 5.5.1 no valid recipients")
        elif await self._answer("data", "354 end with <CR><LF>.<CR><LF>", addresses=self._recipients):
            await self._body(self._faults.find(*self._recipients, stage="body"))

    async def _body(self, rule: Rule | None) -> None:
        if rule is not None and rule.action == "close_mid_data":
            await self._reader.read(1)
            self._abort()
        content = await self._content()
        mail_from, recipients = self._mail_from or "", tuple(self._recipients)
        self._forget()
        if len(content) > self._options.max_size:
            await self._say("552 5.3.4 message too big")
            return
        refused = rule is not None and rule.action is None and (rule.reply or "2")[0] in "45"
        queued = "" if refused else self._keep(mail_from, recipients, content)
        reply = f"250 2.0.0 ok: queued as {queued}"
        if rule is None:
            await self._say(reply)
        else:
            await self._answer("body", reply, rule=rule)

    async def _content(self) -> bytes:
        """Read the mail, without the final dot and without dot-stuffing."""
        body = bytearray()
        while body != b".\r\n" and not body.endswith(b"\r\n.\r\n"):
            try:
                body += await self._reader.readuntil(b".\r\n")
            except asyncio.LimitOverrunError:
                await self._hang_up("552 5.3.4 message too big")
        content = bytes(body[:-3]).replace(b"\r\n..", b"\r\n.")
        return content[1:] if content.startswith(b"..") else content

    def _forget(self) -> None:
        self._mail_from = None
        self._recipients = []


def _argument(rest: str, keyword: str) -> tuple[str, str] | None:
    """`FROM:<address> parameters` → (address, parameters)."""
    if rest[: len(keyword)].upper() != keyword:
        return None
    found = _PATH.fullmatch(rest[len(keyword) :])
    return (found[1], found[2] or "") if found else None


def _decoded(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        return ""
