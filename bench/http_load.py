"""Requests over HTTP, from a process of its own: `python -m bench.http_load`, with a `Load` as JSON on input.

Each connection is kept alive, and sends its next request when it has the answer to the one before. The requests
are made before the clock starts, but for their keys, and an answer is only searched for its end. How much this
process could do is measured, too: against `python -m bench.http_load --answer PORT`, which answers at once.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from bench import mails
from bench.figures import percentiles

try:
    from uvloop import run
except ImportError:  # a platform without uvloop
    from asyncio import run

#: Number of different requests; after them the first comes again, with other keys.
_REQUESTS = 200
#: As long as a real key.
_KEY = "?" * 19
#: Longer than any answer should take. Seconds.
_PATIENCE = 30.0
_HEAD_ENDS = b"\r\n\r\n"
_LENGTH = b"content-length:"
_ANSWER = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}"


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, and to whom."""

    port: int
    path: str
    connections: int
    #: The measured time. It begins after `warm_seconds`, which do not count.
    seconds: float
    warm_seconds: float = 0.5
    #: Messages in one request.
    batch: int = 1
    #: For the header Authorization; "": none is sent.
    token: str = ""


@dataclass(slots=True)
class Counts:
    """Counts that all connections share. Times are those of `time.perf_counter`."""

    starts_at: float
    ends_at: float
    #: Milliseconds for each request that was begun, and answered with 202, within the measured time.
    latencies: list[float] = field(default_factory=list)
    #: Messages answered with 202, whenever that was.
    accepted: int = 0
    #: Messages answered with 202 within the measured time, whenever the request was begun.
    counted: int = 0
    #: Status lines of other answers.
    refused: dict[str, int] = field(default_factory=dict)

    def add(self, status: bytes, begun: float, now: float) -> None:
        """Count one answer."""
        if status.split(b" ", 2)[1:2] != [b"202"]:
            line = status.decode("ascii", "replace")
            self.refused[line] = self.refused.get(line, 0) + 1
            return
        self.accepted += 1
        if self.starts_at <= now <= self.ends_at:
            self.counted += 1
            if begun >= self.starts_at:
                self.latencies.append(1000 * (now - begun))


class Connection(asyncio.Protocol):
    """A kept-alive connection. `ended` is done when it is closed."""

    def __init__(self, counts: Counts, requests: Iterator[bytes]) -> None:
        self._counts = counts
        self._requests = requests
        self._begun = 0.0
        self._buffer = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Handle an answer, or a part of one."""
        self._buffer += data
        if not is_whole(self._buffer):
            return
        now = time.perf_counter()
        self._counts.add(self._buffer.partition(b"\r\n")[0], self._begun, now)
        self._buffer = b""
        if now < self._counts.ends_at:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server closed it, or we did."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _send(self) -> None:
        self._begun = time.perf_counter()
        self._transport.write(next(self._requests))


def is_whole(answer: bytes) -> bool:
    """Whether the headers and as many bytes as they announce have arrived."""
    head, found, rest = answer.partition(_HEAD_ENDS)
    if not found:
        return False
    lines = head.lower().split(b"\r\n")
    length = next((int(line[len(_LENGTH) :]) for line in lines if line.startswith(_LENGTH)), 0)
    return len(rest) >= length


def requests(load: Load) -> Iterator[bytes]:
    """Complete requests without end. Each message has a key of its own; the rest repeats after a while."""
    run = secrets.token_hex(4)
    made = itertools.cycle(list(_templates(load)))
    for first in itertools.count(0, load.batch):
        yield next(made) % tuple(f"{run}-{number:010d}".encode() for number in range(first, first + load.batch))


def _templates(load: Load) -> Iterator[bytes]:
    """Requests with `%b` where their keys go."""
    head = f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    if load.token:
        head += f"Authorization: Bearer {load.token}\r\n"
    for number in range(_REQUESTS):
        entries = [message(number * load.batch + offset, key=_KEY) for offset in range(load.batch)]
        body = json.dumps(entries[0] if load.batch == 1 else {"batch": entries}, separators=(",", ":"))
        text = f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}"
        yield text.replace("%", "%%").replace(_KEY, "%b").encode()


def message(number: int, *, key: str) -> dict[str, Any]:
    """The message that all servers are given."""
    return {
        "idempotency_key": key,
        "channel": "email",
        "to": mails.recipient(number),
        "template": mails.TEMPLATE,
        "context": mails.context(number),
    }


async def send(load: Load) -> dict[str, Any]:
    """Send until the time is over. Returns what `http_requests` reads."""
    made = requests(load)
    # Makes the templates before the clock starts.
    next(made)
    starts_at = time.perf_counter() + load.warm_seconds
    counts = Counts(starts_at, starts_at + load.seconds)
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda: Connection(counts, made), "127.0.0.1", load.port))[1]
        for _ in range(load.connections)
    ]
    begun, spent = time.perf_counter(), time.process_time()
    _, open_ = await asyncio.wait(
        [one.ended for one in connections], timeout=load.warm_seconds + load.seconds + _PATIENCE
    )
    cpu = (time.process_time() - spent) / (time.perf_counter() - begun)
    return {
        "rate": counts.counted * load.batch / load.seconds,
        "accepted": counts.accepted * load.batch,
        "refused": counts.refused,
        "unanswered": len(open_),
        "latency_ms": percentiles(counts.latencies),
        "cpu_percent": round(100 * cpu, 1),
    }


class _Answering(asyncio.Protocol):
    """Answers 202 to each request when it has arrived completely, going by the length in its headers."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer when the request is complete."""
        self._buffer += data
        if is_whole(self._buffer):
            self._buffer = b""
            self._transport.write(_ANSWER)


async def _answer(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Send a load, or be the server that does not limit it."""
    parser = argparse.ArgumentParser(prog="python -m bench.http_load", description=__doc__)
    parser.add_argument("--answer", type=int, metavar="PORT", help="answer at once, until ended")
    options = parser.parse_args()
    if options.answer:
        run(_answer(options.answer))
        return
    load = Load(**cast("Mapping[str, Any]", json.load(sys.stdin)))
    sys.stdout.write(json.dumps(run(send(load))) + "\n")
    sys.stdout.flush()
    # Do not wait for requests without an answer.
    os._exit(0)


if __name__ == "__main__":
    main()
