"""Measures what the model in `bench.model` is fitted on and checked with: 1, 2 and 4 workers, on one core and on
all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from bench import cores, model
from bench.servers import DURABLE
from bench.service import Notifier, parts_of
from bench.subjects import Ground, Task
from bench.throughput import Rates, Say, mail_server, work_off
from bench.usage import OTHERS
from notifier.domain.errors import ServiceUnavailable

#: Numbers of workers in the measurements that the model is fitted on; the others check it.
_FITTED_WORKERS = (2, 1)
_LEAST, _PATIENCE_SECONDS = 100, 60.0
#: A segment of PostgreSQL's log, and what one flush writes for a single commit and on a busy server. Bytes.
_SEGMENT, _SMALL, _LARGE = 16 * 2**20, 8 * 2**10, 2**20

#: Measures mails per second for 1, 2 and 4 workers: number → rates.
Measure = Callable[[], Mapping[str, Rates]]


def measure(
    ground: Ground, on_all: Mapping[str, Rates], again: Measure, *, seconds: float, say: Say
) -> dict[str, Any]:
    """`on_all`: what `again` has measured on every core; it is called once more on one core.

    Raises:
        RuntimeError: this system does not pin processes to cores, or no backlog was finished in time.
    """
    if not cores.available():
        raise RuntimeError("this system does not pin processes to cores")
    rates = {(cores.available(), int(name)): one for name, one in on_all.items()}
    if cores.available() > 1:
        say("  on one core:")
        servers = [pid for pid in (ground.postgres.pid, *ground.rabbitmq.pids) if pid is not None]
        with cores.only(1, servers):
            rates |= {(1, int(name)): one for name, one in again().items()}
    costs = _costs(ground, rates[cores.available(), _FITTED_WORKERS[0]], min(1.0, seconds))
    costs = model.fit(
        costs,
        cores=cores.available(),
        rate=rates[cores.available(), 2].rate,
        rate_of_one_worker=rates[cores.available(), 1].rate,
    )
    statements = statements_of_a_mail(ground, rate=rates[cores.available(), 2].rate, seconds=min(2.0, seconds))
    checks = model.check(costs, {place: one.rate for place, one in rates.items()})
    for row in checks:
        # A figure is worth more if others used the machine less at the same time. 100 is one core.
        row["others_percent"] = round(rates[row["cores"], row["workers"]].usage[OTHERS].cpu_percent)
        say(f"  {row}")
    return {
        "costs": model.as_json(costs),
        "statements_per_mail": None if statements is None else round(statements, 3),
        "fitted_on": [[cores.available(), workers] for workers in _FITTED_WORKERS],
        "checks": checks,
        # Connections to PostgreSQL at full load by number of workers; includes the intake, the urgent worker, and
        # the count of mails made here.
        "connections": {
            name: max(one.connections or 0 for one in rates_of.measurements) for name, rates_of in on_all.items()
        },
    }


def _costs(ground: Ground, rates: Rates, seconds: float) -> model.Costs:
    written = rates.written()
    if written is None:
        raise RuntimeError("no backlog was worked off in time, so no cost of a mail is known")
    return model.Costs(
        cpu_us=parts_of(rates.cpu_us()),
        wal_bytes=round(written[0]),
        transactions=round(written[1], 5),
        disk_bytes=round(_LARGE * flushes_a_second(ground.folder, _LARGE, seconds)),
        disk_flushes=round(flushes_a_second(ground.folder, _SMALL, seconds)),
    )


def statements_of_a_mail(ground: Ground, *, rate: float, seconds: float) -> float | None:
    """How many statements PostgreSQL executes for one mail at full load; None if it cannot count them.

    Counting costs a little, so nothing else is measured at the same time. Restarts PostgreSQL before and after.
    """
    try:
        ground.postgres.start({**DURABLE, "shared_preload_libraries": "pg_stat_statements"})
        with psycopg.connect(ground.postgres.url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            with mail_server(ground, 0.0) as sink, Notifier().running(ground, Task(sink.port)) as run:
                work_off(run, sink, max(_LEAST, round(rate / 2)), patience_seconds=_PATIENCE_SECONDS)
                connection.execute("SELECT pg_stat_statements_reset()")
                one = work_off(run, sink, max(_LEAST, round(rate * seconds)), patience_seconds=_PATIENCE_SECONDS)
                found = connection.execute("SELECT sum(calls) FROM pg_stat_statements").fetchone()
        return float(found[0]) / one.mails if found and one.mails else None
    except (ServiceUnavailable, psycopg.Error):
        # On some systems its libraries are a separate package.
        return None
    finally:
        ground.postgres.start(DURABLE)


def flushes_a_second(folder: Path, size: int, seconds: float) -> float:
    """How often per second the disk takes `size` bytes, flushed, again and again in one file, as PostgreSQL writes
    its log."""
    path = folder / "flushes"
    piece = os.urandom(size)
    with path.open("wb", buffering=0) as file:
        try:
            file.write(bytes(_SEGMENT))
            os.fsync(file.fileno())
            count, begun = 0, time.monotonic()
            while time.monotonic() - begun < seconds:
                file.seek(count * size % _SEGMENT)
                file.write(piece)
                # macOS has no fdatasync.
                getattr(os, "fdatasync", os.fsync)(file.fileno())
                count += 1
            return count / (time.monotonic() - begun)
        finally:
            path.unlink()
