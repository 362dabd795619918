"""`python -m bench.stages`: what one mail costs, stage by stage, in one process without a broker.

Microseconds of processor time for each mail, of our own process and of PostgreSQL. For whoever makes it faster.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psutil

from bench import mails
from bench.postfix import Absent, find_postfix
from bench.servers import Postgres
from bench.sinks import smtp_sink
from notifier.bootstrap import Services
from notifier.config.logs import configure
from notifier.config.settings import load_settings
from notifier.dev.machine import make_temporary_folder
from notifier.domain.statuses import Channel, Lane
from notifier.intake.batch import BATCH_SIZE, Received
from notifier.runtime.garbage_collection import tune_gc
from notifier.worker.names import IDS_PER_TASK
from notifier.worker.runtime import DeliveryLoop
from tests.provisioning.databases import Databases


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__)
    parser.add_argument("--mails", type=int, default=10_000, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=8, help="deliver tasks at once, as NOTIFIER_WORKER_THREADS")
    options = parser.parse_args()
    postfix = find_postfix()
    if isinstance(postfix, Absent):
        sys.exit(f"smtp-sink is absent: {postfix.why}")
    folder = make_temporary_folder(None)
    postgres = Postgres(folder)
    try:
        postgres.start()
        with smtp_sink(postfix, folder) as sink:
            _measure(options, postgres, sink.port)
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _measure(options: argparse.Namespace, postgres: Postgres, port: int) -> None:
    os.environ |= {
        "NOTIFIER_DATABASE_URL": Databases(postgres.url).make(),
        # Nothing connects to it: it only says what kind of broker there would be.
        "NOTIFIER_BROKER_URL": "amqp://127.0.0.1:1",
        "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{port}?starttls=never",
        "NOTIFIER_TEMPLATES": str(mails.TEMPLATES),
        "NOTIFIER_CONFIG": str(mails.HERE / "notifier.toml"),
    }
    configure("warning", "json")
    services = Services(load_settings(use_running=False), pool_size=options.threads + 2)
    loop = DeliveryLoop(services)
    ids: list[UUID] = []
    intake = services.intake(lambda _channel, _lane, accepted: ids.extend(accepted))
    found: dict[str, list[tuple[float, float, float]]] = {"intake": [], "delivery": []}
    tune_gc()
    for number in range(options.rounds + 1):
        batches = [
            [_message(start + offset) for offset in range(BATCH_SIZE)]
            for start in range(number * options.mails, (number + 1) * options.mails, BATCH_SIZE)
        ]
        ids.clear()

        def take_in(batches: Sequence[Sequence[Received]] = batches) -> None:
            for batch in batches:
                intake.process(batch)

        def deliver() -> None:
            tasks = [ids[start : start + IDS_PER_TASK] for start in range(0, len(ids), IDS_PER_TASK)]
            with ThreadPoolExecutor(options.threads) as threads:
                list(threads.map(loop.deliverer.deliver, tasks))

        for stage, work in (("intake", take_in), ("delivery", deliver)):
            figures = _timed(work, options.mails, postgres)
            # The first round only warms up.
            if number:
                found[stage].append(figures)
    loop.stop()
    sys.stdout.write(
        f"{'':10}{'mails/s':>9}{'us of ours':>12}{'us of PostgreSQL':>18}   (medians of the rounds)\n"
    )
    for stage, rounds in found.items():
        rate, ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
        sys.stdout.write(f"{stage:10}{rate:9.0f}{ours:12.0f}{theirs:18.0f}\n")


def _message(number: int) -> Received:
    body = {
        "to": f"user{number}@example.com",
        "idempotency_key": str(number),
        "producer": "shop",
        "template": mails.TEMPLATE,
        "context": mails.context(number),
    }
    return Received(json.dumps(body).encode(), Channel.EMAIL, Lane.NORMAL)


def _timed(work: Callable[[], None], count: int, postgres: Postgres) -> tuple[float, float, float]:
    """Mails a second, and microseconds for each of ours and of PostgreSQL's."""
    theirs, ours, begun = _seconds_of(postgres), time.process_time(), time.perf_counter()
    work()
    seconds, ours = time.perf_counter() - begun, time.process_time() - ours
    theirs = _seconds_of(postgres) - theirs
    return count / seconds, 1e6 * ours / count, 1e6 * theirs / count


def _seconds_of(postgres: Postgres) -> float:
    """Processor time of the server and of everything that it has begun and not ended."""
    assert postgres.pid is not None
    server = psutil.Process(postgres.pid)
    times: list[Any] = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return float(sum(spent.user + spent.system for spent in times))


if __name__ == "__main__":
    main()
