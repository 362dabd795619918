"""One mail on one connection: MAIL, RCPT, DATA, the body, and what each ending means."""

from __future__ import annotations

import asyncio

from notifier.domain.errors import SendError
from notifier.providers.base import Receipt
from notifier.providers.mail.code_table import Stage
from notifier.providers.mail.codes import judge, queue_id, read_answer
from notifier.providers.outcomes import BAD_RECIPIENT, CONTENT, SENDER_REFUSED, UNAVAILABLE, UNKNOWN
from notifier.providers.redaction import mail_detail
from notifier.providers.smtp.mime import Mail
from notifier.providers.smtp.pool import START_INPUT, SmtpConnection
from notifier.providers.smtp.protocol import Garbled, Lost

_OK = (250, 251)
_CLOSING = 421


class StaleConnection(Exception):
    """An idle connection of the pool turned out dead at MAIL FROM. Nothing was sent; use a fresh one."""


class Transaction:
    """Remembers how far it got, so that a timeout can be interpreted."""

    def __init__(self, mail: Mail) -> None:
        self._mail = mail
        #: None while it waits for a connection.
        self._stage: Stage | None = None
        #: Whether the end of the body is still in our own buffer.
        self._is_held_back = False

    async def run(self, connection: SmtpConnection) -> Receipt:
        """Raises a `SendError` for a refusal or a missing answer, and `StaleConnection`."""
        self._stage = Stage.MAIL
        self._require_capabilities(connection)
        commands = self._commands(connection)
        if connection.pipelines:
            # A server that accepts DATA although it refused the recipient gets no body: see `settle`.
            self._write(connection, b"".join(commands.values()), replies=len(commands))
        for stage, command in commands.items():
            self._stage = stage
            if not connection.pipelines:
                self._write(connection, command)
            await self._accepted(connection, stage)
        return await self._body(connection)

    def timed_out(self, deadline_seconds: float) -> SendError:
        """What a deadline that ends at this point means."""
        within = f"within {deadline_seconds:g} s"
        if self._stage is None:
            return UNAVAILABLE.error(f"no free or new connection {within}")
        if self._stage is not Stage.BODY:
            return UNAVAILABLE.error(f"no answer to {self._stage.upper()} {within}")
        if self._is_held_back:
            return UNAVAILABLE.error(f"the server did not read the whole mail {within}")
        return UNKNOWN.error(f"no answer to the end of the mail {within}")

    def _require_capabilities(self, connection: SmtpConnection) -> None:
        if self._mail.needs_smtputf8 and "smtputf8" not in connection.extensions:
            connection.reusable = True
            verdict = SENDER_REFUSED if self._mail.rcpt_to.isascii() else BAD_RECIPIENT
            raise verdict.error("an address with non-ASCII letters before the @, and the server has no SMTPUTF8")
        limit = connection.extensions.get("size", "")
        # RFC 1870 section 6.1: the server's limit; "0" or nothing: none.
        if limit.isdecimal() and 0 < int(limit) < len(self._mail.content):
            connection.reusable = True
            raise CONTENT.error(f"{len(self._mail.content)} bytes, and the server takes {limit}")

    def _commands(self, connection: SmtpConnection) -> dict[Stage, bytes]:
        mail = b"MAIL FROM:<%s>" % self._mail.mail_from.encode()
        if "size" in connection.extensions:
            mail += b" SIZE=%d" % len(self._mail.content)
        if self._mail.needs_smtputf8:
            mail += b" SMTPUTF8"
        rcpt = b"RCPT TO:<%s>" % self._mail.rcpt_to.encode()
        return {Stage.MAIL: mail + b"\r\n", Stage.RCPT: rcpt + b"\r\n", Stage.DATA: b"DATA\r\n"}

    def _write(self, connection: SmtpConnection, data: bytes, *, replies: int = 1) -> None:
        try:
            connection.dialogue.write(data, replies=replies)
        except Lost:
            raise self._lost(connection) from None

    def _lost(self, connection: SmtpConnection) -> Exception:
        if self._stage is Stage.MAIL and connection.is_reused:
            return StaleConnection()
        return UNAVAILABLE.error(f"connection lost at {str(self._stage).upper()}")

    async def _accepted(self, connection: SmtpConnection, stage: Stage) -> None:
        try:
            code, text = await connection.dialogue.reply()
        except Garbled as garbage:
            raise UNAVAILABLE.error(f"no SMTP answer to {stage.upper()}: {mail_detail(str(garbage))}") from None
        except Lost:
            raise self._lost(connection) from None
        if code == START_INPUT if stage is Stage.DATA else code in _OK:
            return
        if code == _CLOSING and stage is Stage.MAIL and connection.is_reused:
            # An idle timeout, or enough mails on one connection: not about this mail.
            raise StaleConnection
        raise self._refused(connection, stage, code, text)

    async def _body(self, connection: SmtpConnection) -> Receipt:
        # RFC 5321 section 4.5.2, and the final dot. Every line of the content ends with CRLF.
        self._write(connection, self._mail.content.replace(b"\n.", b"\n..") + b".\r\n")
        self._stage = Stage.BODY
        try:
            code, text = await connection.dialogue.reply()
        except asyncio.CancelledError:
            self._is_held_back = connection.transport.get_write_buffer_size() > 0
            raise
        except Garbled as garbage:
            raise UNKNOWN.error(f"no SMTP answer to the mail: {mail_detail(str(garbage))}") from None
        except Lost:
            raise UNKNOWN.error("connection lost after the mail was sent") from None
        if code not in _OK:
            raise self._refused(connection, Stage.BODY, code, text)
        connection.reusable = True
        words = mail_detail(text, recipient=self._mail.rcpt_to)
        return Receipt(provider_message_id=mail_detail(queue_id(text)), detail=f"{code} {words}")

    def _refused(self, connection: SmtpConnection, stage: Stage, code: int, text: str) -> SendError:
        answer = read_answer(code, text)
        # 421 announces that the server closes the connection; other codes than 4xx and 5xx have no meaning here.
        if 400 <= code < 600 and code != _CLOSING:
            connection.reusable = connection.needs_reset = True
        words = mail_detail(answer.text, recipient=self._mail.rcpt_to)
        verdict = judge(stage, answer, recipient=self._mail.rcpt_to, ours=self._mail.ours)
        return verdict.error(f"{stage.upper()}: {words}", code=answer.code)
