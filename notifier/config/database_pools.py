"""The number of connections to PostgreSQL of each program, defined only here.

A program's engine keeps a pool, and opens as many connections again while all of the pool is in use.
"""

from __future__ import annotations

from collections.abc import Mapping

from notifier.config.settings import Settings

#: Threads of the API that are reserved for providers and for people who unsubscribe.
API_OUTSIDE_THREADS = 4
#: Threads of the API for monitoring. Answers are cached, so more threads would only wait for each other.
API_MONITORING_THREADS = 2
#: Returned mails that one `notifier bounces` records concurrently.
BOUNCE_THREADS = 4

INTAKE_POOL = 8
BOUNCES_POOL = BOUNCE_THREADS


def worker_pool(settings: Settings) -> int:
    """Pool size of a worker, and of `notifier callbacks run`."""
    return settings.worker_threads + 2


def api_request_threads(settings: Settings) -> int:
    """Threads that handle requests, each with one connection."""
    return settings.api_threads + API_OUTSIDE_THREADS + API_MONITORING_THREADS


def most_connections(settings: Settings) -> Mapping[str, int]:
    """Program → maximum connections of one process of it. Beat has none."""
    return {
        "intake": 2 * INTAKE_POOL,
        "worker": 2 * worker_pool(settings),
        "callbacks": 2 * worker_pool(settings),
        # In addition to its threads, one connection accepts messages, one publishes their tasks, and one counts
        # once a minute.
        "api": api_request_threads(settings) + 3,
        "bounces": 2 * BOUNCES_POOL,
    }
