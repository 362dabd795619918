"""How many connections to PostgreSQL each program holds: the only place that says so.

A program's engine keeps a pool, and opens as many again while all of it is in use.
"""

from __future__ import annotations

from collections.abc import Mapping

from notifier.config.settings import Settings

#: Threads of the API reserved for providers and for people who unsubscribe.
API_OUTSIDE_THREADS = 4
#: Threads of the API for monitoring. Its answers are cached, so more would only wait for each other.
API_MONITORING_THREADS = 2
#: Returned mails that one `notifier bounces` records at once.
BOUNCE_THREADS = 4

INTAKE_POOL = 8
BOUNCES_POOL = BOUNCE_THREADS


def worker_pool(settings: Settings) -> int:
    """Of a worker, and of `notifier callbacks run`."""
    return settings.worker_threads + 2


def api_request_threads(settings: Settings) -> int:
    """Threads that work on requests, each with one connection."""
    return settings.api_threads + API_OUTSIDE_THREADS + API_MONITORING_THREADS


def most_connections(settings: Settings) -> Mapping[str, int]:
    """Program → the connections that one process of it holds at most. Beat holds none."""
    return {
        "intake": 2 * INTAKE_POOL,
        "worker": 2 * worker_pool(settings),
        "callbacks": 2 * worker_pool(settings),
        # Beside its threads one accepts messages, and one publishes their tasks; a third counts once a minute.
        "api": api_request_threads(settings) + 3,
        "bounces": 2 * BOUNCES_POOL,
    }
