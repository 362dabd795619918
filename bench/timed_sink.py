"""A mail server that takes its time, or reports how long a mail was on its way: `python -m bench.timed_sink`.

Postfix's `smtp-sink` can only wait for whole seconds, and says nothing about single mails. This server answers
each mail after `--delay` seconds. For each recipient `<label>.t<nanoseconds>.…@…` it writes "<label>
<milliseconds>" into `--record`: the time is that of CLOCK_MONOTONIC, which all processes of a machine share. Like
`smtp-sink -c` it keeps a running counter `mesg=<n>` on its standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
import time
from collections import deque
from typing import IO, cast

try:
    from uvloop import run
except ImportError:  # a platform without uvloop
    from asyncio import run

_TIMED = re.compile(rb"<([a-z]+)\.t(\d+)\.")
_EHLO = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n"
_OK = b"250 2.0.0 Ok\r\n"
_END = b"\r\n.\r\n"
#: How often counter and record are written. Seconds.
_FLUSH_SECONDS = 0.01


class Counters:
    """Counts that all sessions share."""

    def __init__(self, delay: float, record: IO[str] | None) -> None:
        self.delay = delay
        self.mails = 0
        self._written = 0
        self._record = record
        self._lines: list[str] = []

    def accept(self, recipients: list[bytes]) -> None:
        """Count one mail that is being answered now."""
        self.mails += 1
        if self._record is None:
            return
        now = time.monotonic_ns()
        for recipient in recipients:
            found = _TIMED.search(recipient)
            if found:
                self._lines.append(f"{found[1].decode()} {(now - int(found[2])) / 1e6:.3f}\n")

    def flush(self) -> None:
        """Write what is new."""
        if self._record is not None and self._lines:
            self._record.write("".join(self._lines))
            self._record.flush()
            self._lines.clear()
        if self.mails != self._written:
            self._written = self.mails
            sys.stdout.write(f"mesg={self.mails}\r")
            sys.stdout.flush()


class Session(asyncio.Protocol):
    """One connection. Enough SMTP for clients that make no mistakes."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._in_data = False
        self._waits = False
        self._recipients: list[bytes] = []
        self._answers: deque[bytes] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not belong to a class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def _go_on(self) -> None:
        while self._transport is not None and not self._waits:
            if not (self._read_body() if self._in_data else self._read_line()):
                break
        if self._answers and self._transport is not None:
            self._transport.write(b"".join(self._answers))
            self._answers.clear()

    def _read_body(self) -> bool:
        end = self._buffer.find(_END)
        if end < 0:
            return False
        self._buffer = self._buffer[end + len(_END) :]
        self._in_data = False
        if self._counters.delay:
            self._waits = True
            asyncio.get_running_loop().call_later(self._counters.delay, self._accept_later)
        else:
            self._accept()
        return True

    def _accept_later(self) -> None:
        if self._transport is None:
            return
        self._waits = False
        self._accept()
        self._go_on()

    def _accept(self) -> None:
        self._counters.accept(self._recipients)
        self._recipients = []
        self._answers.append(_OK)

    def _read_line(self) -> bool:
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            return False
        self._buffer = rest
        verb = line[:4].upper()
        if verb == b"DATA":
            # An empty body has no line before its dot.
            self._buffer = b"\r\n" + rest
            self._in_data = True
            self._answers.append(b"354 End with a dot\r\n")
        elif verb == b"EHLO":
            self._answers.append(_EHLO)
        elif verb == b"QUIT":
            assert self._transport is not None
            self._transport.write(b"".join(self._answers) + b"221 2.0.0 Bye\r\n")
            self._transport.close()
            self._transport = None
        else:
            if verb == b"RCPT":
                self._recipients.append(line)
            self._answers.append(_OK)
        return True


async def _serve(port: int, delay: float, record: IO[str] | None) -> None:
    counters = Counters(delay, record)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Session(counters), "127.0.0.1", port, backlog=1024)
    while not stop.is_set():
        await asyncio.sleep(_FLUSH_SECONDS)
        counters.flush()
    server.close()
    counters.flush()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bench.timed_sink")
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--record", type=argparse.FileType("w"), metavar="FILE")
    options = parser.parse_args()
    run(_serve(options.port, options.delay, options.record))


if __name__ == "__main__":
    main()
