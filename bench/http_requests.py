"""Messages per second over HTTP, and how long an answer takes: ours beside a view that calls Celery's `delay()`.

Both run in one process under uvicorn, and take turns. A round counts only if everything answered with 202 is in
our record, or in Celery's queue; otherwise it raises.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from statistics import median
from typing import Any

from bench import mails
from bench.http_load import Load
from bench.http_servers import HttpServer, answering, celery_view, notifier_api
from bench.service import wait_for
from bench.subjects import Ground
from bench.throughput import Say
from bench.usage import sampling

CONNECTIONS = (1, 16, 64)
#: Messages in a batch request, and connections that send batches.
BATCH, BATCH_CONNECTIONS = 100, 16
#: How long a load may take beyond its own duration.
_PATIENCE_SECONDS = 60.0
_HELD_SECONDS = 10.0

Round = dict[str, dict[str, Any]]


def measure(ground: Ground, *, rounds: int, seconds: float, say: Say) -> dict[str, Any]:
    """Measure both in turns; the last in a round is first in the next. `seconds`: for each number of
    connections."""
    servers: Mapping[str, Callable[[Ground], AbstractContextManager[HttpServer]]] = {
        "notifier": notifier_api,
        "celery_delay": celery_view,
    }
    found: dict[str, list[Round]] = {name: [] for name in servers}
    for number in range(rounds):
        for name in list(servers)[:: 1 if number % 2 == 0 else -1]:
            with servers[name](ground) as server:
                found[name].append(_round(ground, server, seconds))
            words = ", ".join(f"{key}: {one['rate']:.0f}/s" for key, one in found[name][-1].items())
            say(f"  round {number + 1}: {name:<13} {words}")
    with answering(ground) as server:
        limit = {str(count): round(_load(server, count, min(1.0, seconds))["rate"]) for count in CONNECTIONS}
    say(f"  the load could send: {limit}")
    return {
        "processes": 1,
        **{name: _medians(rounds_of) for name, rounds_of in found.items()},
        "load": {"most": limit, "cpu_percent": _busiest(found)},
    }


def _round(ground: Ground, server: HttpServer, seconds: float) -> Round:
    found = {}
    others = {"(postgres)": ground.postgres.pid, "(rabbitmq)": ground.rabbitmq.pids[1], "server": server.pid}
    pids = {name: pid for name, pid in others.items() if pid is not None}
    for count in CONNECTIONS:
        found[str(count)] = _counted(server, pids, count, seconds, batch=1)
    if server.batch_path:
        found[f"batches_of_{BATCH}"] = _counted(server, pids, BATCH_CONNECTIONS, seconds, batch=BATCH)
    return found


def _counted(
    server: HttpServer, pids: Mapping[str, int], connections: int, seconds: float, *, batch: int
) -> dict[str, Any]:
    """One load, with the processor time for a message by process.

    Raises:
        RuntimeError: a request was refused or not answered, or a message was answered with 202 but is not held.
    """
    before = server.held()
    with sampling(pids) as usage:
        one = _load(server, connections, seconds, batch=batch)
    if one["refused"] or one["unanswered"] or not one["accepted"]:
        raise RuntimeError(f"a load of {connections} connections was not taken: {one}")
    if not wait_for(lambda: server.held() - before >= one["accepted"], _HELD_SECONDS):
        raise RuntimeError(f"{one['accepted']} messages were accepted, {server.held() - before} are there")
    return one | {"cpu_us": {name: 1e6 * usage[name].cpu_seconds / one["accepted"] for name in pids}}


def _load(server: HttpServer, connections: int, seconds: float, *, batch: int = 1) -> dict[str, Any]:
    path = server.path if batch == 1 else server.batch_path or ""
    load = Load(server.port, path, connections, seconds, min(0.5, seconds), batch, server.token)
    done = subprocess.run(
        [sys.executable, "-m", "bench.http_load"],
        input=json.dumps(asdict(load)),
        cwd=mails.HERE.parent,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * seconds + _PATIENCE_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"the load ended early: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _medians(rounds: list[Round]) -> dict[str, Any]:
    return {
        key: {
            "rate": round(median(one[key]["rate"] for one in rounds), 1),
            "rates": [round(one[key]["rate"], 1) for one in rounds],
            **{rank: median(one[key]["latency_ms"].get(rank, 0.0) for one in rounds) for rank in ("p50", "p99")},
            "cpu_us": {
                name: round(median(one[key]["cpu_us"][name] for one in rounds), 1)
                for name in rounds[0][key]["cpu_us"]
            },
        }
        for key in rounds[0]
    }


def _busiest(found: Mapping[str, list[Round]]) -> float:
    """The largest share of a core that the load needed anywhere."""
    return max(float(one["cpu_percent"]) for rounds in found.values() for turn in rounds for one in turn.values())
