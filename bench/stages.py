"""`python -m bench.stages`: what one mail or SMS costs, stage by stage, in one process without a broker.

For each: microseconds of processor time, of our own process and of PostgreSQL, bytes of its write-ahead log
and its commits. For whoever makes it faster. `--batch` makes batches and tasks small, as they are at half load.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from uuid import UUID

from bench import mails, sms
from bench.postfix import Absent, find_postfix
from bench.servers import Postgres
from bench.service import body
from bench.sinks import slow_twilio, smtp_sink
from bench.usage import family_cpu_seconds
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
    parser.add_argument("--batch", type=int, default=IDS_PER_TASK, help="messages of a batch, and ids of a task")
    parser.add_argument("--threads", type=int, default=8, help="deliver tasks at once, as NOTIFIER_WORKER_THREADS")
    parser.add_argument("--channel", type=Channel, default=Channel.EMAIL, help="email or sms")
    options = parser.parse_args()
    folder = make_temporary_folder(None)
    postgres = Postgres(folder)
    try:
        postgres.start()
        with _server(options.channel, folder) as settings:
            _measure(options, postgres, settings)
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _server(channel: Channel, folder: Path) -> Iterator[Mapping[str, str]]:
    """The settings of a provider whose server runs during the block."""
    if channel is Channel.SMS:
        with slow_twilio(folder, delay_seconds=sms.DELAY_SECONDS) as twilio:
            yield sms.settings(twilio)
        return
    postfix = find_postfix()
    if isinstance(postfix, Absent):
        sys.exit(f"smtp-sink is absent: {postfix.why}")
    with smtp_sink(postfix, folder) as sink:
        yield {"NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{sink.port}?starttls=never"}


def _measure(options: argparse.Namespace, postgres: Postgres, provider: Mapping[str, str]) -> None:
    os.environ |= {
        **provider,
        "NOTIFIER_DATABASE_URL": Databases(postgres.url).make(),
        # Nothing connects to it: it only says which kind of broker there would be.
        "NOTIFIER_BROKER_URL": "amqp://127.0.0.1:1",
        "NOTIFIER_TEMPLATES": str(mails.TEMPLATES),
        "NOTIFIER_CONFIG": str(mails.HERE / "notifier.toml"),
    }
    configure("warning", "json")
    services = Services(load_settings(use_running=False), pool_size=options.threads + 2)
    loop = DeliveryLoop(services)
    ids: list[UUID] = []
    intake = services.intake(lambda _channel, _lane, accepted: ids.extend(accepted))
    found: dict[str, list[Cost]] = {"intake": [], "delivery": []}
    tune_gc()
    size = min(options.batch, BATCH_SIZE)
    for number in range(options.rounds + 1):
        batches = [
            [_message(options.channel, start + offset) for offset in range(size)]
            for start in range(number * options.mails, (number + 1) * options.mails, size)
        ]
        ids.clear()

        def take_in(batches: Sequence[Sequence[Received]] = batches) -> None:
            for batch in batches:
                intake.process(batch)

        def deliver() -> None:
            tasks = [ids[start : start + size] for start in range(0, len(ids), size)]
            with ThreadPoolExecutor(options.threads) as threads:
                list(threads.map(loop.deliverer.deliver, tasks))

        for stage, work in (("intake", take_in), ("delivery", deliver)):
            cost = _timed(work, options.mails, postgres)
            # The first round only warms up.
            if number:
                found[stage].append(cost)
    loop.stop()
    sys.stdout.write(f"{'':10}{'mails/s':>9}{'us of ours':>12}{'us of PostgreSQL':>18}{'WAL bytes':>11}")
    sys.stdout.write(f"{'commits':>14}   (medians of {options.rounds} rounds, batches of {size})\n")
    for stage, rounds in found.items():
        rate, ours, theirs, wal, commits = map(statistics.median, zip(*map(astuple, rounds), strict=True))
        sys.stdout.write(f"{stage:10}{rate:9.0f}{ours:12.0f}{theirs:18.0f}{wal:11.0f}{commits:14.3f}\n")


def _message(channel: Channel, number: int) -> Received:
    return Received(body(channel, number), channel, Lane.NORMAL)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one mail in one stage."""

    mails_a_second: float
    our_us: float
    postgresql_us: float
    wal_bytes: float
    commits: float


def _timed(work: Callable[[], None], count: int, postgres: Postgres) -> Cost:
    assert postgres.pid is not None
    wal, commits = postgres.written()
    theirs, ours, begun = family_cpu_seconds(postgres.pid), time.process_time(), time.perf_counter()
    work()
    seconds, ours = time.perf_counter() - begun, time.process_time() - ours
    theirs = family_cpu_seconds(postgres.pid) - theirs
    wal_after, commits_after = postgres.written()
    return Cost(
        count / seconds,
        1e6 * ours / count,
        1e6 * theirs / count,
        (wal_after - wal) / count,
        (commits_after - commits) / count,
    )


if __name__ == "__main__":
    main()
