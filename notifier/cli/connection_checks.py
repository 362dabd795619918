"""What `notifier doctor` checks about the number of connections to PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from notifier.cli.check_result import Check
from notifier.config.database_pools import most_connections

if TYPE_CHECKING:
    from notifier.bootstrap import Services
    from notifier.config.settings import Settings
    from notifier.store.connection_limits import ConnectionLimits

#: From this share in use on, the next program may find none.
NEARLY_ALL = 0.8


def check_connections(services: Services) -> Iterator[Check]:
    from notifier.store.connection_limits import connection_limits

    yield judge_connections(services.settings, connection_limits(services.engine))


def judge_connections(settings: Settings, limits: ConnectionLimits) -> Check:
    most = sum(most_connections(settings).values())
    said = (
        f"{limits.used} of {limits.allowed} are in use, by {limits.name}; one of each program holds {most} at most"
    )
    fix = ""
    if most > limits.allowed:
        fix = "raise it, or lower NOTIFIER_WORKER_THREADS and NOTIFIER_API_THREADS"
    elif limits.used >= NEARLY_ALL * limits.allowed:
        fix = "raise it, or put a pooler before PostgreSQL, before you start more programs"
    return Check("connections", True, said, fix)
