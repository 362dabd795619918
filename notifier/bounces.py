"""Takes bounces from a mail server: LMTP and SMTP on one port, one recipient at a time.

Nothing is acknowledged before it is recorded. While the record is away the server is asked to come again (451), so
its queue keeps what we cannot. What is forged is acknowledged and dropped: a refusal would make the server return
it to its forged sender, and tell a forger which tokens are right. Only mail to another address is refused, because
somebody's configuration is wrong then.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session, syntax

from notifier.errors import ConfigurationError, ServiceUnavailable
from notifier.operations.bounces import Bounces
from notifier.telemetry import log, log_failure

#: A larger mail is refused. Servers return some tens of kilobytes, a few the whole mail. Bytes.
MAX_MAIL_BYTES = 32 * 1024 * 1024
#: Mail servers that are served at once, each with a mail in memory; others are asked to come again.
MAX_CONNECTIONS = 20
#: Recorded at once, each with a connection to the database.
THREADS = 4
#: What is being recorded at SIGTERM has so long to end. Seconds.
GRACE_SECONDS = 30.0
#: A client that says nothing for so long is dropped. Seconds.
_IDLE_SECONDS = 300.0

_ACKNOWLEDGED = "250 2.0.0 recorded"
_LATER = "451 4.3.0 the record cannot be used now; try again later"


class _Handler:
    """What aiosmtpd asks; its names are aiosmtpd's."""

    def __init__(self, bounces: Bounces, pool: ThreadPoolExecutor) -> None:
        self._bounces = bounces
        self._pool = pool
        #: Mails that are being recorded.
        self.busy: set[asyncio.Future[Any]] = set()
        #: Clients that are served now.
        self.connections = 0

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if not self._bounces.is_ours(address):
            log.warning("bounce.not_ours")
            return "550 5.1.1 not the bounce address of this service"
        if envelope.rcpt_tos:
            # LMTP answers for each recipient; with one there is one answer in SMTP and LMTP alike.
            return "452 4.5.3 one recipient at a time"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.original_content or b""
        loop = asyncio.get_running_loop()
        taking = loop.run_in_executor(self._pool, self._bounces.take, content, str(envelope.rcpt_tos[0]))
        self.busy.add(taking)
        taking.add_done_callback(self._is_over)
        try:
            # A client that goes away meanwhile changes nothing: it is recorded, and comes again as a repetition.
            await asyncio.shield(taking)
        except ServiceUnavailable:
            return _LATER
        return _ACKNOWLEDGED

    def _is_over(self, taking: asyncio.Future[Any]) -> None:
        self.busy.discard(taking)
        # If the client went away nobody else looks at it, and asyncio would complain.
        if not taking.cancelled():
            taking.exception()

    async def handle_exception(self, error: Exception) -> str:
        """A fault of ours, or of the dialogue: the server keeps the mail."""
        log_failure("bounce.failed", error)
        return _LATER


class _Dialogue(SMTP):
    """SMTP, and LMTP for whoever greets with LHLO."""

    #: Longer than RFC 5321 allows: a report with such a line is better than none. Bytes.
    line_length_limit = 1024 * 1024

    _is_served = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client; one too many is told so, and not listened to."""
        handler: _Handler = self.event_handler
        if handler.connections >= MAX_CONNECTIONS:
            log.warning("bounces.too_many", count=handler.connections)
            assert isinstance(transport, asyncio.Transport)
            transport.write(b"421 4.3.2 too many connections, try again later\r\n")
            transport.close()
            return
        handler.connections += 1
        self._is_served = True
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """What a client says that is served."""
        if self._is_served:
            super().data_received(data)

    def eof_received(self) -> bool | None:
        """The end of it."""
        return super().eof_received() if self._is_served else False

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits can come now."""
        if self._is_served:
            self._is_served = False
            self.event_handler.connections -= 1
            super().connection_lost(error)

    @syntax("LHLO hostname")
    async def smtp_LHLO(self, hostname: str) -> None:  # noqa: N802
        """The greeting of LMTP."""
        await self.smtp_EHLO(hostname)


def serve(bounces: Bounces, host: str, port: int, stop: threading.Event) -> None:
    """Take bounces until `stop` is set; those being recorded then are finished.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    asyncio.run(_serve(bounces, host, port, stop))


async def _serve(bounces: Bounces, host: str, port: int, stop: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS, "bounces") as pool, ThreadPoolExecutor(1, "stop") as waiting:
        handler = _Handler(bounces, pool)
        server = await _listen(handler, host, port, loop)
        log.info("bounces.start", host=host, port=port)
        await loop.run_in_executor(waiting, stop.wait)
        server.close()
        if handler.busy:
            await asyncio.wait(handler.busy, timeout=GRACE_SECONDS)


async def _listen(
    handler: _Handler, host: str, port: int, loop: asyncio.AbstractEventLoop
) -> asyncio.AbstractServer:
    def dialogue() -> _Dialogue:
        return _Dialogue(
            handler,
            data_size_limit=MAX_MAIL_BYTES,
            enable_SMTPUTF8=True,
            hostname="notifier",
            ident="notifier bounces",
            timeout=_IDLE_SECONDS,
            loop=loop,
        )

    try:
        return await loop.create_server(dialogue, host, port)
    except OSError as error:
        raise ConfigurationError(
            f"nothing can listen on {host}:{port} ({error.strerror}): is another one running there? "
            "give another --listen",
            setting="--listen",
        ) from None
