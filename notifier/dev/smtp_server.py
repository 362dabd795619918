"""A local mail server for demo, tests and measurements: accepts every mail, keeps it, and delivers none.

It is fast enough not to limit a measurement, and can misbehave on demand (`Rule`). It supports STARTTLS and AUTH
if it is given a certificate and users. Do not run it on a public address.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from notifier.dev.faults import Faults
from notifier.dev.machine import make_private, private_opener
from notifier.dev.server_thread import running
from notifier.dev.smtp_faults import Rule
from notifier.dev.smtp_session import MailServerOptions, SmtpSession

__all__ = ["MailServer", "MailServerOptions", "ReceivedMail", "Rule", "running_mail_server"]

_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*(?:\r\n[ \t]+)?(\S+)", re.IGNORECASE | re.MULTILINE)
_UNREADABLE = re.compile(r"[^\w.@+-]+")


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    mail_from: str
    rcpt_to: tuple[str, ...]
    #: The message, without dot-stuffing.
    content: bytes
    received_at: datetime
    #: The header Message-ID with its angle brackets; "" if there is none.
    message_id: str


class MailServer:
    """The server. It listens from `start` to `stop`, and belongs to one event loop; `messages` may be read from
    any thread."""

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        *,
        options: MailServerOptions | None = None,
        folder: Path | None = None,
        max_connections: int = 10_000,
        keep: int = 100_000,
    ) -> None:
        """Create the server; nothing listens yet.

        Args:
            rules: What to do wrong; the first rule that fits counts. None: everything is accepted.
            options: What it offers; None: plain SMTP without TLS or AUTH.
            folder: Where each mail is also written, as one .eml file; created if it is missing.
            max_connections: Further connections are greeted with a 421.
            keep: Number of the newest mails that are kept in `messages`.
        """
        self.faults = Faults(rules)
        self.options = options or MailServerOptions()
        #: As in `__init__`; may be changed at any time.
        self.max_connections = max_connections
        #: Connections that were refused because of the maximum.
        self.turned_away = 0
        #: Mails accepted since the start, including those no longer kept.
        self.received = 0
        #: Connections since the start, and the maximum at one time.
        self.connections = 0
        self.peak_connections = 0
        self._folder = folder
        self._messages: deque[ReceivedMail] = deque(maxlen=keep)
        self._sessions: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._port = 0

    @property
    def open_connections(self) -> int:
        return len(self._sessions)

    @property
    def port(self) -> int:
        return self._port

    @property
    def messages(self) -> list[ReceivedMail]:
        """Kept mails, oldest first: a copy."""
        return list(self._messages)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen. Port 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        if self._folder is not None:
            make_private(self._folder)
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(
            self._serve,
            host,
            port,
            ssl=self.options.tls if self.options.implicit_tls else None,
            backlog=1024,
            limit=2 * self.options.max_size + 65_536,
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and close every connection. It can be started again on the same port."""
        if self._server is not None:
            self._server.close()
        sessions = list(self._sessions)
        self.drop_connections()
        await asyncio.gather(*sessions, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
        self._server = None

    def drop_connections(self) -> None:
        """Close every connection without a word, and keep listening, like a firewall or a restart."""
        for task, writer in self._sessions.items():
            writer.transport.abort()
            task.cancel()

    def drop_connections_threadsafe(self) -> None:
        dropped = threading.Event()

        def drop() -> None:
            self.drop_connections()
            dropped.set()

        assert self._loop is not None
        self._loop.call_soon_threadsafe(drop)
        dropped.wait(5)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        welcome = len(self._sessions) < self.max_connections
        self.turned_away += not welcome
        session = SmtpSession(self.options, self.faults, self._keep_mail, reader, writer)
        task = asyncio.ensure_future(session.run(welcome=welcome))
        self._sessions[task] = writer
        self.peak_connections = max(self.peak_connections, len(self._sessions))
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._sessions.pop(task).close()

    def _keep_mail(self, mail_from: str, rcpt_to: tuple[str, ...], content: bytes) -> str:
        header = content.partition(b"\r\n\r\n")[0]
        found = _MESSAGE_ID.search(header)
        message_id = found[1].decode("utf-8", "replace") if found else ""
        mail = ReceivedMail(mail_from, rcpt_to, content, datetime.now(UTC), message_id)
        self.received += 1
        self._messages.append(mail)
        if self._folder is not None:
            self._write(self._folder, mail)
        return f"{self.received:08X}"

    def _write(self, folder: Path, mail: ReceivedMail) -> None:
        recipient = _UNREADABLE.sub("_", mail.rcpt_to[0])[:80]
        name = f"{mail.received_at:%Y%m%d-%H%M%S}-{self.received:06d}-{recipient}.eml"
        # So that readers of the folder see only complete files.
        unfinished = folder / f".{name}.part"
        with open(unfinished, "wb", opener=private_opener) as file:
            file.write(mail.content)
        unfinished.rename(folder / name)


@contextlib.contextmanager
def running_mail_server(server: MailServer | None = None, *, port: int = 0) -> Iterator[MailServer]:
    """Run a mail server in a thread of its own: `with running_mail_server() as server: … server.port`."""
    with running(server or MailServer(), port=port) as started:
        yield started
