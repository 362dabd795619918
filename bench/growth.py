"""Rates and latencies with an ever longer past, and the auditors' searches at its largest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from bench import audits, past
from bench.latency import one_at_a_time
from bench.servers import DURABLE, FILLING
from bench.service import Notifier
from bench.sinks import timed_sink
from bench.subjects import Ground, Task
from bench.throughput import Say, measure_rounds, work_off

_IDLE = 100


def measure(
    ground: Ground, sizes: Sequence[int], *, rounds: int, seconds: float, rate: float, say: Say
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns rates and latencies for each size, and the searches at the last size."""
    found: dict[str, Any] = {}
    searches: dict[str, Any] = {}
    for rows in sizes:
        begun = time.monotonic()
        ground.postgres.start(FILLING)
        url = ground.databases.make()
        try:
            past.fill(url, rows)
            past.clean_up(url)
            ground.postgres.start(DURABLE)
            say(f"  {rows} notifications, made in {time.monotonic() - begun:.0f} s")
            if rows == max(sizes):
                # First, because everything measured later adds to the newest month.
                searches = audits.measure(url, rows, say=say)
            subject = Notifier(database_url=url)
            rates = measure_rounds(
                ground, [subject], rounds=rounds, seconds=seconds, guesses={subject.name: rate}, say=say
            )[subject.name]
            idle = _idle(ground, url)
            say(f"  idle: {idle}")
            found[str(rows)] = {"rate": round(median(rates.rates), 1), **rates.as_json(), "idle_ms": idle}
        finally:
            ground.postgres.start(DURABLE)
            ground.databases.drop(url)
    return found, searches


def _idle(ground: Ground, url: str) -> dict[str, float]:
    with timed_sink(ground.folder) as sink:
        subject = Notifier(database_url=url)
        with subject.running(ground, Task(sink.port)) as run:
            work_off(run, sink, _IDLE, patience_seconds=60)
            return one_at_a_time(run, sink, _IDLE)
