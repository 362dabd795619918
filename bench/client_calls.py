"""Messages per second from one producing process: `Client.send` and `send_many` beside Celery's `delay()`.

All of them wait for the broker's confirmation, and take turns. A turn counts only if everything that was sent is
in the queue.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import median
from typing import Any

from bench import mails
from bench.http_servers import GUIDE_QUEUE
from bench.producer import BATCH
from bench.subjects import Ground
from bench.throughput import Say
from notifier.broker.topology import notify_queue_name
from notifier.domain.statuses import Channel, Lane
from tests.support.queues import bodies

#: Name → the kind of producer and its number of threads.
TURNS = {
    "client_1": ("client", 1),
    "celery_delay_1": ("celery", 1),
    "client_16": ("client", 16),
    "celery_delay_16": ("celery", 16),
    f"client_many_{BATCH}": ("client_many", 1),
}
_PATIENCE_SECONDS = 60.0


def measure(ground: Ground, *, rounds: int, seconds: float, say: Say) -> dict[str, Any]:
    """Measure all kinds in turns, each in a new process and on a new virtual host."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in TURNS}
    for number in range(rounds):
        for name in list(TURNS)[:: 1 if number % 2 == 0 else -1]:
            one = _turn(ground, name, seconds)
            found[name].append(one)
            say(f"  round {number + 1}: {name:<16} {one['rate']:>8.0f}/s, {one['latency_ms']}")
    return {name: _medians(turns) for name, turns in found.items()}


def _turn(ground: Ground, name: str, seconds: float) -> dict[str, Any]:
    kind, threads = TURNS[name]
    queue = GUIDE_QUEUE if kind == "celery" else notify_queue_name(Channel.EMAIL, Lane.NORMAL)
    broker_url = ground.rabbitmq.make_vhost()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.producer", kind, "--threads", str(threads), "--seconds", str(seconds)],
            cwd=mails.HERE.parent,
            env={**os.environ, "BENCH_BROKER_URL": broker_url},
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * seconds + _PATIENCE_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"the producer {name} ended early: {done.stderr[-500:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        if (held := _messages_in(broker_url, queue)) < found["sent"]:
            raise RuntimeError(f"{name}: {found['sent']} were confirmed, {held} are in the queue")
        return found
    finally:
        ground.rabbitmq.drop_vhost(broker_url)


def _messages_in(broker_url: str, queue: str) -> int:
    """The number of messages in the queue, which are taken out. Messages sent at once may be a single entry of the
    queue."""
    count = 0
    for body in bodies(broker_url, queue):
        # A Celery task is a list.
        message = json.loads(body)
        count += len(message["batch"]) if "batch" in message else 1
    return count


def _medians(turns: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "rate": round(median(one["rate"] for one in turns), 1),
        "rates": [round(one["rate"], 1) for one in turns],
        **{rank: median(one["latency_ms"].get(rank, 0.0) for one in turns) for rank in ("p50", "p99")},
        "cpu_us": round(median(one["cpu_us"] for one in turns), 1),
    }
