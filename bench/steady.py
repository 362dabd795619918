"""A long steady load: memory must not grow, and queues must stay empty."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bench.figures import percentiles, slope
from bench.latency import check
from bench.pace import Stream
from bench.service import Notifier, NotifierRun, wait_for
from bench.sinks import timed_sink
from bench.subjects import Ground, Task
from bench.throughput import Say, work_off
from bench.usage import memory_mb, sampling
from notifier.broker import topology
from notifier.dev.embedded.rabbitmq import amqp_connection
from notifier.domain.statuses import Lane

_WARM = 500
_SAMPLES = 120
_PATIENCE_SECONDS = 30.0


def measure(ground: Ground, *, seconds: float, rate: float, say: Say) -> dict[str, Any]:
    """`rate` messages per second for `seconds`. Memory and queues are sampled all the time."""
    with timed_sink(ground.folder) as sink, Notifier().running(ground, Task(sink.port)) as run:
        work_off(run, sink, _WARM, patience_seconds=60)
        before = sink.taken()
        run.mark()
        pids = run.pids()
        memory: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        queues: list[tuple[float, float]] = []
        begun = time.monotonic()
        with (
            sampling(pids) as usage,
            Stream(run.broker_url, rate=rate, lane=Lane.NORMAL, label="steady") as stream,
        ):
            while (at := time.monotonic() - begun) < seconds:
                for name, pid in pids.items():
                    memory[name].append((round(at, 1), round(memory_mb(pid), 1)))
                queues.append((round(at, 1), waiting(run)))
                time.sleep(max(0.5, seconds / _SAMPLES))
        check(stream)
        is_done = wait_for(lambda: sink.taken() - before >= stream.published, _PATIENCE_SECONDS)
        found = {
            "seconds": round(seconds),
            "rate": round(stream.published / seconds),
            "published": stream.published,
            "accepted": sink.taken() - before,
            "recorded": _recorded(run, stream.published) if is_done else run.recorded(),
            "latency_ms": percentiles(sink.latencies("steady")),
            "waiting_most": max((depth for _, depth in queues), default=0.0),
            "waiting_at_end": waiting(run),
            "memory_mb": {name: _memory(points) for name, points in memory.items()},
            "processes": {name: one.as_json() for name, one in usage.items()},
            "series": {"memory_mb": memory, "waiting": queues},
        }
    most = f"waiting {found['waiting_most']:.0f} at most"
    say(f"  {found['rate']}/s for {found['seconds']} s: {found['memory_mb']}, {most}")
    return found


def waiting(run: NotifierRun) -> float:
    """Messages and tasks in the queues for mail, without those that a program has in hand."""
    names = [topology.notify_queue_name(*pair) for pair in topology.pairs()]
    names += [topology.deliver_queue_name(*pair) for pair in topology.pairs()]
    with amqp_connection(run.broker_url) as connection:
        channel = connection.channel()
        return float(sum(channel.queue_declare(name, passive=True).message_count for name in names))


def _recorded(run: NotifierRun, published: int) -> int:
    """How many the record calls sent, after a short wait."""
    wait_for(lambda: run.recorded() >= published, _PATIENCE_SECONDS, pause=0.5)
    return run.recorded()


def _memory(points: list[tuple[float, float]]) -> Mapping[str, float]:
    """The growth is that of the second half, because caches fill before that."""
    second_half = points[len(points) // 2 :]
    return {
        "first": points[0][1],
        "last": points[-1][1],
        "most": max(size for _, size in points),
        "growth_per_hour": round(slope(second_half) * 3600, 1),
    }
