"""Pooled connections to one mail server: a new one costs several round trips and a TLS handshake."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import aiosmtplib

from notifier.config.logs import log
from notifier.providers.smtp.adaptive_limit import AdaptiveLimit
from notifier.providers.smtp.protocol import Dialogue, Garbled, Lost

#: A connection that was idle for longer is checked before use. Servers close idle ones after minutes
#: (RFC 5321 section 4.5.3.2.7: at least 5), firewalls sooner and silently.
CHECK_AFTER_SECONDS = 5.0
#: After this many refused connections a mail fails; retries are decided elsewhere.
_REFUSALS = 3
#: How long the answer to that check, or to QUIT, may take.
_ANSWER_SECONDS = 2.0
#: The answer to DATA: send the body.
START_INPUT = 354
_OK = 250


class PoolClosed(Exception):
    """The pool was closed while someone waited for a connection."""


class SmtpConnection:
    """One open connection, and what the pool needs to know about it."""

    def __init__(self, smtp: aiosmtplib.SMTP, now: float) -> None:
        #: The server's EHLO keywords, in lower case, with their parameters.
        self.extensions = dict(smtp.esmtp_extensions)
        self.pipelines = "pipelining" in self.extensions
        self.transport = cast("asyncio.Transport", smtp.transport)
        self.dialogue = Dialogue(self.transport)
        self.opened_at = now
        self.used_at = now
        #: Mails started on it, the current one included.
        self.messages = 0
        #: Set by the user when the dialogue ended cleanly; otherwise the connection is dropped.
        self.reusable = False
        #: Set by the user when the server still holds half a transaction: it needs RSET before the next MAIL.
        self.needs_reset = False

    @property
    def is_reused(self) -> bool:
        """Whether it has been idle in the pool: the server may have closed it."""
        return self.messages > 1

    def abort(self) -> None:
        """Close it at once, dropping data that was written but not sent: a mail that we call unsent must not leave
        later."""
        self.transport.abort()

    async def settle(self) -> None:
        """Make it ready for the next MAIL, and check that it is alive.

        Raises:
            Lost, Garbled: it is closed, or out of step.
        """
        if not self.dialogue.is_usable:
            raise Lost
        while self.dialogue.outstanding:
            if (await self.dialogue.reply()).code == START_INPUT:
                # It waits for the body of a mail whose recipient it refused. Ending it would send an empty mail.
                raise Lost
        answer = await self.dialogue.ask(b"RSET" if self.needs_reset else b"NOOP")
        if answer.code != _OK:
            raise Lost
        self.needs_reset = False

    async def quit(self) -> None:
        """Send QUIT, wait briefly for the answer, and close."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self.dialogue.ask(b"QUIT")
        except (OSError, Garbled):
            pass
        finally:
            self.abort()

    def retire(self) -> None:
        """Send QUIT and close without waiting for the answer, as Postfix does (smtp_skip_quit_response)."""
        if not self.transport.is_closing():
            self.transport.write(b"QUIT\r\n")
        self.transport.close()


class Pool:
    """As many connections as the server can use, up to `max_connections`; further mails wait for a free one."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[aiosmtplib.SMTP]],
        *,
        max_connections: int,
        max_messages: int,
        max_age_seconds: float,
        check_after_seconds: float = CHECK_AFTER_SECONDS,
    ) -> None:
        self._connect = connect
        self._max_messages = max_messages
        self._max_age_seconds = max_age_seconds
        self._check_after_seconds = check_after_seconds
        self._limit = AdaptiveLimit(max_connections)
        self._waiting: deque[asyncio.Future[None]] = deque()
        #: Mails that have a connection or are opening one.
        self._at_work = 0
        #: Last in, first out: under light load the rest grow old and are closed.
        self._idle: list[SmtpConnection] = []
        self._busy: set[SmtpConnection] = set()
        self._closed = False
        self._pruning: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def connection(self, *, fresh: bool = False) -> AsyncIterator[SmtpConnection]:
        """A connection for one mail: an idle one that works, or (always, if `fresh`) a new one.

        Raises:
            PoolClosed: if the pool is closed.
            OSError, aiosmtplib.SMTPException: if none can be opened.
        """
        connection = await self._take(fresh=fresh)
        is_new = connection.messages == 0
        connection.messages += 1
        connection.reusable = False
        self._busy.add(connection)
        begun = self._now()
        try:
            yield connection
        finally:
            now = self._now()
            # The time of a first mail says little: servers greet and answer slowly at first.
            if connection.reusable and not is_new:
                self._limit.took(now - begun, at=now, is_wanted=bool(self._waiting))
            self._busy.discard(connection)
            self._put_back(connection, now)
            self._leave()

    async def _take(self, *, fresh: bool) -> SmtpConnection:
        refusals = 0
        while True:
            await self._enter()
            try:
                if self._closed:
                    raise PoolClosed
                return (None if fresh else await self._take_idle()) or await self._open()
            except (OSError, aiosmtplib.SMTPException) as error:
                refusals += 1
                waits = self._waits_for_others(error) and refusals < _REFUSALS
                self._leave()
                if not waits:
                    raise
            except BaseException:
                self._leave()
                raise

    def _waits_for_others(self, error: Exception) -> bool:
        """Whether a mail whose connection was refused should use another one. Call it before its place becomes
        free: a mail that took that place would be refused as well."""
        if not _may_mean_too_many(error):
            return False
        others = self._at_work - 1
        if self._limit.refused(at=self._now(), at_work=others) and others:
            log.warning("smtp.connection_refused", count=others, error=type(error).__name__)
        return others > 0

    async def _enter(self) -> None:
        if self._at_work < self._limit.now and not self._waiting:
            self._at_work += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # Its turn had come already.
                self._leave()
            raise

    def _leave(self) -> None:
        self._at_work -= 1
        while self._waiting and self._at_work < self._limit.now:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._at_work += 1

    async def close(self) -> None:
        """Close every connection: idle ones with QUIT, busy ones at once."""
        self._closed = True
        if self._pruning is not None:
            self._pruning.cancel()
            self._pruning = None
        for connection in list(self._busy):
            connection.abort()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.quit() for connection in idle))
        # The event loop closes the sockets in its next round.
        await asyncio.sleep(0)

    async def _open(self) -> SmtpConnection:
        smtp = await self._connect()
        connection = SmtpConnection(smtp, self._now())
        if self._closed:
            connection.abort()
            raise PoolClosed
        return connection

    async def _take_idle(self) -> SmtpConnection | None:
        while self._idle:
            connection, now = self._idle.pop(), self._now()
            if self._is_worn(connection, now):
                connection.retire()
            elif not self._needs_check(connection, now) or await self._answers(connection):
                return connection
        return None

    def _is_worn(self, connection: SmtpConnection, now: float) -> bool:
        return connection.messages >= self._max_messages or now - connection.opened_at >= self._max_age_seconds

    def _needs_check(self, connection: SmtpConnection, now: float) -> bool:
        return (
            connection.needs_reset
            or not connection.dialogue.is_usable
            or now - connection.used_at >= self._check_after_seconds
        )

    async def _answers(self, connection: SmtpConnection) -> bool:
        """Whether it is alive and ready for the next MAIL. A dead one is dropped."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await connection.settle()
        except (OSError, Garbled):
            connection.abort()
            return False
        except BaseException:
            connection.abort()
            raise
        return True

    def _put_back(self, connection: SmtpConnection, now: float) -> None:
        if self._closed or not connection.reusable or not connection.dialogue.is_usable:
            connection.abort()
        elif self._is_worn(connection, now):
            connection.retire()
        else:
            connection.used_at = now
            self._idle.append(connection)
            self._start_pruning()

    def _start_pruning(self) -> None:
        if self._pruning is None:
            delay = max(0.0, self._idle[0].opened_at + self._max_age_seconds - self._now())
            self._pruning = asyncio.get_running_loop().call_later(delay, self._prune)

    def _prune(self) -> None:
        """Close connections that grew too old while idle: they take a place at the server."""
        self._pruning = None
        now = self._now()
        worn = [connection for connection in self._idle if self._is_worn(connection, now)]
        self._idle = [connection for connection in self._idle if connection not in worn]
        for connection in worn:
            connection.retire()
        if self._idle:
            self._start_pruning()

    @staticmethod
    def _now() -> float:
        # The event loop's clock is the same, but has to be looked up each time.
        return time.monotonic()


def _may_mean_too_many(error: Exception) -> bool:
    """Whether the server may have refused because we have too many connections: 4xx, or hanging up."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return 400 <= error.code < 500
    return isinstance(error, OSError)
