"""The server that receives bounces from a mail server: LMTP and SMTP on one port, one recipient at a time.

No mail is acknowledged before it is recorded. While the database is unreachable the sending server is told to try
again (451), so its queue keeps the mail. Forged mail is acknowledged and dropped: a refusal would make the sending
server return it to its forged sender, and would tell a forger which tokens are right. Only mail to another address
is refused, because then some configuration is wrong.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session, syntax

from notifier.config.database_pools import BOUNCE_THREADS
from notifier.config.logs import log, log_failure
from notifier.config.rare_warnings import RareWarning
from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from notifier.feedback.bounces import Bounces
from notifier.runtime.connection_limit import ConnectionLimit, peer_of
from notifier.telemetry.liveness import LIVENESS, watch

#: A larger mail is refused. Most servers return some tens of kilobytes, a few return the whole mail. Bytes.
MAX_MAIL_BYTES = 32 * 1024 * 1024
#: Bytes of each mail that are kept and read; the report comes before the returned mail.
KEPT_BYTES = 1024 * 1024
#: Time at SIGTERM for mails that are being recorded. Seconds.
GRACE_SECONDS = 30.0
#: aiosmtpd ends a session in which one command occurs more often than this; a mail server then starts another.
_MAX_COMMANDS = 1000
#: The event loop's name in `telemetry.liveness`.
_LOOP = "bounces"

_ACKNOWLEDGED = "250 2.0.0 recorded"
_warn_not_ours, _warn_too_slow = RareWarning("bounce.not_ours"), RareWarning("bounces.too_slow")
_LATER = "451 4.3.0 the record cannot be used now; try again later"


@dataclass(frozen=True, slots=True)
class BounceServerLimits:
    """How much of this program mail servers may use. Times in seconds."""

    #: Maximum number of connections, each with up to `KEPT_BYTES` and some buffers in memory …
    connections: int = 40
    #: … and from one address.
    of_peer: int = 20
    #: Time for a command to arrive.
    command: float = 60.0
    #: Time for a mail to arrive, plus one second …
    mail: float = 60.0
    #: … for this many bytes.
    mail_bytes: int = 16 * 1024
    #: Longest session; it ends between two commands.
    session: float = 900.0
    #: A client that has sent nothing useful for longer than this loses its place to a new client if none is free …
    place: float = 2.0
    #: … but keeps it one second longer for this many bytes of the current mail.
    place_bytes: int = 256 * 1024
    #: Interval between these checks.
    look: float = 0.5


class _Handler:
    """Receives the mails. aiosmtpd calls it, and dictates the method names."""

    def __init__(self, bounces: Bounces, pool: ThreadPoolExecutor, limits: BounceServerLimits) -> None:
        self._bounces = bounces
        self._pool = pool
        #: Mails that are being recorded, or wait to be.
        self.busy: set[asyncio.Future[Any]] = set()
        self.limits = limits
        self.connections: ConnectionLimit[_Dialogue] = ConnectionLimit(limits.connections, limits.of_peer)

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if not self._bounces.is_ours(address):
            _warn_not_ours()
            return "550 5.1.1 not the bounce address of this service"
        if envelope.rcpt_tos:
            # LMTP answers once for each recipient; with one recipient, SMTP and LMTP are the same.
            return "452 4.5.3 one recipient at a time"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if len(self.busy) >= self.limits.connections:
            # Their clients have left without waiting for the answer.
            return _LATER
        content = envelope.original_content or b""
        loop = asyncio.get_running_loop()
        taking = loop.run_in_executor(self._pool, self._bounces.take, content, str(envelope.rcpt_tos[0]))
        self.busy.add(taking)
        taking.add_done_callback(self._is_over)
        try:
            # If the client leaves in the meantime, the mail is recorded all the same, and recognised when it comes
            # again.
            await asyncio.shield(taking)
        except ServiceUnavailable:
            return _LATER
        return _ACKNOWLEDGED

    def _is_over(self, taking: asyncio.Future[Any]) -> None:
        self.busy.discard(taking)
        # If the client has left, nobody else reads the result, and asyncio would complain.
        if not taking.cancelled():
            taking.exception()

    async def handle_exception(self, error: Exception) -> str:
        """Answer an error of ours or of the dialogue: the sending server keeps the mail."""
        log_failure("bounce.failed", error)
        return _LATER


class _Dialogue(SMTP):
    """An SMTP session, or LMTP after LHLO. A client that sends little or nothing loses its place."""

    #: Buffer for a line, which may be used twice. Longer lines are read in pieces. Bytes.
    line_length_limit = 64 * 1024

    def __init__(self, handler: _Handler, **options: Any) -> None:
        super().__init__(handler, **options)
        self.peer = ""
        self._handler = handler
        self._is_served = False
        self._connection: asyncio.Transport | None = None
        #: Start of the session, time of the last complete command, and last useful moment.
        self._begun = self._since = self._used = self.loop.time()
        #: Bytes received of the current mail; None: there is none.
        self._mail_size: int | None = None
        self._is_recording = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client over the limit gets an answer, and nothing is read from it."""
        assert isinstance(transport, asyncio.Transport)
        self._connection = transport
        self.peer = peer_of(transport.get_extra_info("peername"))
        self._is_served = self._handler.connections.enter(self)
        if self._is_served:
            super().connection_made(transport)
        else:
            self._drop("421 4.3.2 too many connections, try again later")

    def data_received(self, data: bytes) -> None:
        if self._is_served:
            super().data_received(data)

    def eof_received(self) -> bool | None:
        return super().eof_received() if self._is_served else False

    def connection_lost(self, error: Exception | None) -> None:
        self._handler.connections.leave(self)
        if self._is_served:
            self._is_served = False
            super().connection_lost(error)

    def eviction_rank(self) -> float | None:
        """See `runtime.connection_limit.LimitedConnection`: clients that send no mail are evicted before clients
        that send one. Commands do not keep a place, because NOOP is a command."""
        limits = self._handler.limits
        waited = self.loop.time() - self._used - (self._mail_size or 0) / limits.place_bytes
        if self._is_recording or waited < limits.place:
            return None
        return waited if self._mail_size is not None else waited + 1_000_000

    def evict(self) -> None:
        self._drop("421 4.3.2 too many connections, and this one waits; try again later")

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Called when a command is complete. aiosmtpd's timer does not know how fast a mail arrives; `_look`
        replaces it."""
        self._since = self.loop.time()
        if self._timeout_handle is None:
            self._look()

    def _look(self) -> None:
        limits, now = self._handler.limits, self.loop.time()
        most = limits.command if self._mail_size is None else limits.mail + self._mail_size / limits.mail_bytes
        is_over = self._mail_size is None and now - self._begun >= limits.session
        if not self._is_recording and (now - self._since >= most or is_over):
            _warn_too_slow()
            self._drop("421 4.4.2 that took too long, try again later")
        self._timeout_handle = self.loop.call_later(limits.look, self._look)

    def _drop(self, answer: str) -> None:
        assert self._connection is not None, "set by connection_made"
        if self._connection.is_closing() or self._connection.get_write_buffer_size():
            self._connection.abort()  # the client does not read the answer
            return
        self._connection.write(f"{answer}\r\n".encode())
        self._connection.close()

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        """Replaces aiosmtpd's method, which would keep the whole mail several times, line by line."""
        if await self.check_helo_needed():
            return
        assert self.envelope is not None
        assert self.session is not None
        if arg or not self.envelope.rcpt_tos:
            await self.push("501 Syntax: DATA" if arg else "503 Error: need RCPT command")
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        self._mail_size = 0
        try:
            content = await self._read_mail()
        finally:
            self._mail_size = None
        if content is None:
            self._drop("552 5.3.4 the mail is too large")
            return
        self.envelope.content = self.envelope.original_content = content
        self._is_recording = True
        try:
            answer = await self._handler.handle_DATA(self, self.session, self.envelope)
        finally:
            self._is_recording = False
            self._since = self._used = self.loop.time()
            self.envelope = self._create_envelope()
        await self.push(answer)

    async def _read_mail(self) -> bytes | None:
        """The first `KEPT_BYTES` of a mail, after all of it has arrived; None: it is too large."""
        kept, size, is_line_begin = bytearray(), 0, True
        while True:
            try:
                part = await self._reader.readuntil(b"\r\n")
            except asyncio.LimitOverrunError as long:
                part = await self._reader.read(long.consumed)
            if is_line_begin and part == b".\r\n":
                return bytes(kept)
            size += len(part)
            if size > MAX_MAIL_BYTES:
                return None
            # RFC 5321 section 4.5.2.
            kept += part[1:] if is_line_begin and part.startswith(b".") else part
            del kept[KEPT_BYTES:]
            is_line_begin = part.endswith(b"\r\n")
            self._mail_size = size

    @syntax("LHLO hostname")
    async def smtp_LHLO(self, hostname: str) -> None:  # noqa: N802
        """The greeting of LMTP."""
        await self.smtp_EHLO(hostname)


def serve(
    bounces: Bounces,
    host: str,
    port: int,
    stop: threading.Event,
    limits: BounceServerLimits = BounceServerLimits(),
) -> None:
    """Receive bounces until `stop` is set. Mails that are being recorded then are finished.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    asyncio.run(_serve(bounces, host, port, stop, limits))
    LIVENESS.ended(_LOOP)


async def _serve(
    bounces: Bounces, host: str, port: int, stop: threading.Event, limits: BounceServerLimits
) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(BOUNCE_THREADS, "bounces") as pool, ThreadPoolExecutor(1, "stop") as waiting:
        handler = _Handler(bounces, pool, limits)
        server = await _listen(handler, host, port, loop)
        log.info("bounces.start", host=host, port=port)
        watch(loop, _LOOP)
        await loop.run_in_executor(waiting, stop.wait)
        server.close()
        if handler.busy:
            await asyncio.wait(handler.busy, timeout=GRACE_SECONDS)
        # A mail that is not recorded by now comes again.
        pool.shutdown(wait=False, cancel_futures=True)


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
            command_call_limit=_MAX_COMMANDS,
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
