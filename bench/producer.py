"""A producer as a process of its own: `python -m bench.producer KIND --threads N --seconds S`.

KIND is `client` (`Client.send`), `client_many` (`Client.send_many`) or `celery` (`delay()` with confirms).
Threads call one client, as threads of a web application do. The result is JSON on standard output; the broker
comes from BENCH_BROKER_URL.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench import mails
from bench.figures import percentiles

#: Messages in one call of `send_many`.
BATCH = 100
_WARM_SECONDS = 0.5
#: Distance between the first numbers of two threads, so that no two of them send the same message.
_APART = 10_000_000

#: Sends the messages from this number on. Returns how many.
Send = Callable[[int], int]


def main() -> None:
    """Measure one kind."""
    parser = argparse.ArgumentParser(prog="python -m bench.producer", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    with KINDS[options.kind]() as send:
        found = produce(send, threads=options.threads, seconds=options.seconds)
    sys.stdout.write(json.dumps(found) + "\n")


def produce(send: Send, *, threads: int, seconds: float) -> dict[str, Any]:
    """Call `send` in every thread until the time is over. The first half second does not count."""
    starts_at = time.perf_counter() + min(_WARM_SECONDS, seconds)
    ends_at = starts_at + seconds
    spent = time.process_time()

    def work(first: int) -> tuple[int, int, list[float]]:
        number, counted = first, 0
        latencies = []
        while (begun := time.perf_counter()) < ends_at:
            count = send(number)
            now = time.perf_counter()
            number += count
            if starts_at <= begun and now <= ends_at:
                counted += count
                latencies.append(1000 * (now - begun))
        return counted, number - first, latencies

    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(work, range(0, threads * _APART, _APART)))
    sent = sum(of_thread for _, of_thread, _ in found)
    return {
        "rate": sum(counted for counted, _, _ in found) / seconds,
        "sent": sent,
        "latency_ms": percentiles([one for _, _, latencies in found for one in latencies]),
        "cpu_us": 1e6 * (time.process_time() - spent) / max(1, sent),
    }


@contextlib.contextmanager
def _client() -> Iterator[Send]:
    from notifier.client.client import Client

    with Client(os.environ["BENCH_BROKER_URL"], producer="bench") as client:

        def send(number: int) -> int:
            client.send(mails.TEMPLATE, mails.recipient(number), context=mails.context(number))
            return 1

        yield send


@contextlib.contextmanager
def _client_many() -> Iterator[Send]:
    from notifier.client.client import Client

    with Client(os.environ["BENCH_BROKER_URL"], producer="bench") as client:

        def send(number: int) -> int:
            entries = [
                {"template": mails.TEMPLATE, "to": mails.recipient(one), "context": mails.context(one)}
                for one in range(number, number + BATCH)
            ]
            return len(client.send_many(entries, channel="email", lane="normal"))

        yield send


@contextlib.contextmanager
def _celery() -> Iterator[Send]:
    from bench.peers.celery_guide.tasks import send_mail

    def send(number: int) -> int:
        send_mail.delay(mails.recipient(number), mails.TEMPLATE, mails.context(number))
        return 1

    yield send


KINDS: dict[str, Callable[[], contextlib.AbstractContextManager[Send]]] = {
    "client": _client,
    "client_many": _client_many,
    "celery": _celery,
}

if __name__ == "__main__":
    main()
