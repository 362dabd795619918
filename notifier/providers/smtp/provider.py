"""E-mail through a relay, by SMTP.

One recipient per transaction, so that an answer is always about one notification. The dialogue is led command by
command, because it must be exact on which side of the mail's final dot a failure happened: before it the mail was
certainly not accepted, after it nobody knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Self

import aiosmtplib

from notifier.domain.statuses import Channel
from notifier.providers.base import Outgoing, Receipt
from notifier.providers.mail.address import Mailbox, parse_mailbox
from notifier.providers.outcomes import BAD_RECIPIENT, SENDER_REFUSED, UNAVAILABLE
from notifier.providers.smtp.connect import connect, describe, failed_to_connect
from notifier.providers.smtp.mime import Correspondents, Mail, compose
from notifier.providers.smtp.options import SmtpOptions
from notifier.providers.smtp.pool import Pool, PoolClosed, SmtpConnection
from notifier.providers.smtp.transaction import StaleConnection, Transaction
from notifier.providers.system_resolver import SystemResolver

#: Senders and reply addresses are few and repeat with every mail.
_parse_ours = lru_cache(maxsize=256)(parse_mailbox)


class SmtpProvider:
    channel = Channel.EMAIL
    options_model = SmtpOptions

    def __init__(self, name: str, options: SmtpOptions) -> None:
        self.name = name
        self._options = options
        self._names = SystemResolver()
        self._pool = Pool(
            lambda: connect(options, self._names),
            max_connections=options.max_connections,
            max_messages=options.max_messages,
            max_age_seconds=options.max_age_seconds,
        )

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Self:
        return cls(name, SmtpOptions.read(name, options))

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        transaction = Transaction(self._compose(outgoing))
        try:
            async with asyncio.timeout(deadline_seconds):
                return await self._deliver(transaction)
        except TimeoutError:
            raise transaction.timed_out(deadline_seconds) from None
        except PoolClosed:
            raise UNAVAILABLE.error("this provider is being closed") from None

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
        await self._pool.close()

    def _compose(self, outgoing: Outgoing) -> Mail:
        who = Correspondents(
            sender=_ours(outgoing.sender, "sender"),
            to=_theirs(outgoing.to),
            reply_to=_ours(outgoing.reply_to, "reply_to") if outgoing.reply_to else None,
        )
        domain = self._options.message_id_domain or who.sender.domain
        return compose(outgoing, who, domain=domain, date=datetime.now(UTC))

    async def _deliver(self, transaction: Transaction) -> Receipt:
        try:
            return await self._try(transaction, fresh=False)
        except StaleConnection:
            # The server had closed the idle connection, which we noticed at MAIL FROM: nothing was sent yet.
            return await self._try(transaction, fresh=True)

    async def _try(self, transaction: Transaction, *, fresh: bool) -> Receipt:
        try:
            async with self._pool.connection(fresh=fresh) as connection:
                return await transaction.run(connection)
        except (OSError, aiosmtplib.SMTPException) as error:
            raise failed_to_connect(self._options, error) from error

    async def _greet(self) -> str:
        smtp = await connect(self._options, self._names)
        said = describe(smtp, self._options)
        connection = SmtpConnection(smtp, 0.0)
        try:
            await connection.settle()
            await connection.quit()
        finally:
            connection.abort()
        return said


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
