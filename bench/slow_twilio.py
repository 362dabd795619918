"""A Twilio that accepts every SMS and takes as long as the real one. A program: `python -m bench.slow_twilio`.

Unlike the real one, it shares the machine with what is measured. So it is not a web server, but only answers what
`POST .../Messages.json` needs, as `smtp-sink` does for mails: the local Twilio of `notifier.dev` uses more of a
core than the service.

It keeps a running counter `mesg=<n>` on its standard output, as `smtp-sink -c` does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
import signal
import sys
from typing import Any

from notifier.dev.twilio_messages import new_message
from notifier.dev.twilio_server import ACCOUNT_SID

_FLUSH_SECONDS = 0.01
_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)\r\n", re.IGNORECASE)
_END = b"\r\n\r\n"
_SID = "SM" + "0" * 32


class _Connection(asyncio.Protocol):
    """One connection, whose requests come one after the other."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._received = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(_END)
        length = _LENGTH.search(head + b"\r\n")
        if not end or (length and len(body) < int(length[1])):
            return
        self._received = b""
        self._server.answer_later(self._transport, is_message=head.startswith(b"POST "))


class _Server:
    def __init__(self, delay_seconds: float) -> None:
        self.received = 0
        self._delay_seconds = delay_seconds
        form = {"To": "+15550100123", "From": "+15550100100", "Body": "Your code is 123456."}
        content = json.dumps(new_message(ACCOUNT_SID, form).as_json() | {"sid": _SID, "uri": _SID}).encode()
        head = f"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
        self._parts = (head.encode() + _END + content).split(_SID.encode())

    def answer_later(self, transport: Any, *, is_message: bool) -> None:
        asyncio.get_running_loop().call_later(self._delay_seconds, self._answer, transport, is_message)

    def _answer(self, transport: Any, is_message: bool) -> None:
        if not is_message:
            transport.close()
            return
        self.received += 1
        transport.write(b"SM%b".join(self._parts).replace(b"SM%b", b"SM" + secrets.token_hex(16).encode()))


async def _serve(port: int, delay_seconds: float) -> None:
    server, loop = _Server(delay_seconds), asyncio.get_running_loop()
    listening = await loop.create_server(lambda: _Connection(server), "127.0.0.1", port, backlog=1024)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    written = 0
    while not stop.is_set():
        await asyncio.sleep(_FLUSH_SECONDS)
        if server.received != written:
            written = server.received
            sys.stdout.write(f"mesg={written}\r")
            sys.stdout.flush()
    listening.close()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bench.slow_twilio")
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=float, default=0.15, metavar="SECONDS")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.delay))


if __name__ == "__main__":
    main()
