"""Sends mails through a relay, by SMTP.

Each transaction has one recipient, so that an answer is always about one notification. `letter` says what a
missing answer means, `line` runs the dialogue, and `lines` keeps the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Self, cast

import aiosmtplib

from notifier.domain.errors import SendError
from notifier.domain.statuses import Channel
from notifier.providers.base import Outgoing, QueuedCall, Receipt
from notifier.providers.mail.address import Mailbox, parse_mailbox
from notifier.providers.outcomes import BAD_RECIPIENT, SENDER_REFUSED, UNAVAILABLE
from notifier.providers.smtp.connect import connect, describe, failed_to_connect
from notifier.providers.smtp.letter import Letter
from notifier.providers.smtp.lines import Lines
from notifier.providers.smtp.mime import Correspondents, Mail, compose
from notifier.providers.smtp.options import SmtpOptions
from notifier.providers.system_resolver import SystemResolver

#: Senders and reply addresses are few, and repeat with every mail.
_parse_ours = lru_cache(maxsize=256)(parse_mailbox)
#: How long a server may take to answer QUIT.
_GOODBYE_SECONDS = 2.0


class SmtpProvider:
    channel = Channel.EMAIL
    options_model = SmtpOptions

    def __init__(self, name: str, options: SmtpOptions) -> None:
        self.name = name
        self._options = options
        self._names = SystemResolver()
        #: Whether the server takes eight bits: it offered 8BITMIME, and no mail has shown otherwise.
        self._takes_8bit = False
        self._is_8bit_safe = options.allow_8bit
        self._lines = Lines(
            self._connect,
            lambda error: failed_to_connect(options, error),
            max_connections=options.max_connections,
            max_messages=options.max_messages,
            max_age_seconds=options.max_age_seconds,
        )

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Self:
        return cls(name, SmtpOptions.read(name, options))

    def put(self, call: QueuedCall, *, deadline_seconds: float) -> None:
        """See `Queues.put`."""
        try:
            mail = self._compose(call.outgoing, takes_8bit=self._takes_8bit)
        except SendError as error:
            call.end(error)
            return
        in_7bit = partial(self._compose_in_7bit, call.outgoing)
        self._lines.put(Letter(call, mail, in_7bit, deadline_seconds=deadline_seconds))

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        call = _OneCall(outgoing)
        self.put(call, deadline_seconds=deadline_seconds)
        answer = await call.answer
        if isinstance(answer, SendError):
            raise answer
        return answer

    async def check(self, *, deadline_seconds: float) -> str:
        try:
            async with asyncio.timeout(deadline_seconds):
                return await self._greet()
        except TimeoutError:
            text = f"{self._options.url.host} did not answer within {deadline_seconds:g} s"
            raise UNAVAILABLE.error(text) from None
        except (OSError, aiosmtplib.SMTPException) as error:
            raise failed_to_connect(self._options, error) from error

    async def close(self) -> None:
        await self._lines.close()

    async def _connect(self) -> aiosmtplib.SMTP:
        smtp = await connect(self._options, self._names)
        self._takes_8bit = self._is_8bit_safe and "8bitmime" in smtp.esmtp_extensions
        return smtp

    def _compose_in_7bit(self, outgoing: Outgoing) -> Mail:
        """Compose for a server that did not take eight bits. All following mails are composed like this."""
        self._takes_8bit = self._is_8bit_safe = False
        return self._compose(outgoing, takes_8bit=False)

    def _compose(self, outgoing: Outgoing, *, takes_8bit: bool) -> Mail:
        who = Correspondents(
            sender=_ours(outgoing.sender, "sender"),
            to=_theirs(outgoing.to),
            reply_to=_ours(outgoing.reply_to, "reply_to") if outgoing.reply_to else None,
        )
        domain = self._options.message_id_domain or who.sender.domain
        return compose(outgoing, who, domain=domain, date=datetime.now(UTC), takes_8bit=takes_8bit)

    async def _greet(self) -> str:
        smtp = await connect(self._options, self._names)
        transport = cast("asyncio.Transport", smtp.transport)
        try:
            said = describe(smtp, self._options)
            await smtp.noop()
            with contextlib.suppress(OSError, aiosmtplib.SMTPException):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await smtp.quit()
        finally:
            # At once, because closing TLS properly waits for the server.
            transport.abort()
            smtp.close()
        return said


class _OneCall:
    """A call of `send`. It must begin at once, so all of it happens within the deadline."""

    def __init__(self, outgoing: Outgoing) -> None:
        self.outgoing = outgoing
        self.start_by = time.monotonic()
        self.answer: asyncio.Future[Receipt | SendError] = asyncio.get_running_loop().create_future()

    def begin(self) -> SendError | None:
        return UNAVAILABLE.error("nobody waits for it any more") if self.answer.cancelled() else None

    def end(self, answer: Receipt | SendError) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


def _ours(text: str, what: str) -> Mailbox:
    try:
        return _parse_ours(text)
    except ValueError as error:
        raise SENDER_REFUSED.error(f"the configured {what} cannot be used: {error}") from None


def _theirs(text: str) -> Mailbox:
    try:
        return parse_mailbox(text)
    except ValueError as error:
        raise BAD_RECIPIENT.error(str(error)) from None
