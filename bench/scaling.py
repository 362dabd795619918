"""What the model of `bench.model` is made of, and what it is checked with: 1, 2 and 4 workers, on one core and
on all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import cores, model
from bench.subjects import Ground
from bench.throughput import Rates, Say

#: Workers of the measurements that it is fitted on; the other ones check it.
_FITTED_WORKERS = (2, 1)
#: A segment of PostgreSQL's log, and what one flush of a commit and of a busy server writes. Bytes.
_SEGMENT, _SMALL, _LARGE = 16 * 2**20, 8 * 2**10, 2**20

#: Measures mails a second for 1, 2 and 4 workers: number → rates.
Measure = Callable[[], Mapping[str, Rates]]


def measure(
    ground: Ground, on_all: Mapping[str, Rates], again: Measure, *, seconds: float, say: Say
) -> dict[str, Any]:
    """`on_all`: what `again` has measured on every core; it is called once more on one core.

    Raises:
        RuntimeError: this system does not pin processes to cores, or none of a backlog was worked off in time.
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
    checks = model.check(costs, {place: one.rate for place, one in rates.items()})
    for row in checks:
        say(f"  {row}")
    return {
        "costs": model.as_json(costs),
        "fitted_on": [[cores.available(), workers] for workers in _FITTED_WORKERS],
        "checks": checks,
        "postgresql_processes": {
            f"{place[0]}, {place[1]}": one.usage["(postgres)"].processes for place, one in rates.items()
        },
    }


def _costs(ground: Ground, rates: Rates, seconds: float) -> model.Costs:
    from bench.report import parts_of

    written = rates.written()
    if written is None:
        raise RuntimeError("no backlog was worked off in time, so no cost of a mail is known")
    return model.Costs(
        cpu_us=parts_of(rates),
        wal_bytes=round(written[0]),
        transactions=round(written[1], 5),
        disk_bytes=round(_LARGE * flushes_a_second(ground.folder, _LARGE, seconds)),
        disk_flushes=round(flushes_a_second(ground.folder, _SMALL, seconds)),
    )


def flushes_a_second(folder: Path, size: int, seconds: float) -> float:
    """How often the disk takes `size` bytes, flushed, over and over in one file, as PostgreSQL writes its log."""
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
