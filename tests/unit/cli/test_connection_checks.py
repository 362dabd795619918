"""What `notifier doctor` says about the number of connections to PostgreSQL."""

from __future__ import annotations

import pytest

from notifier.cli.connection_checks import judge_connections
from notifier.config.settings import Settings
from notifier.store.connection_limits import ConnectionLimits


@pytest.mark.parametrize(
    ("allowed", "used", "fix"),
    [
        (197, 30, ""),
        (197, 160, "raise it, or put a pooler before PostgreSQL, before you start more programs"),
        (80, 5, "raise it, or lower NOTIFIER_WORKER_THREADS and NOTIFIER_API_THREADS"),
    ],
)
def test_what_one_of_each_program_needs_is_held_against_the_limit(allowed: int, used: int, fix: str) -> None:
    check = judge_connections(Settings(), ConnectionLimits("max_connections", allowed, used))
    said = f"{used} of {allowed} are in use, by max_connections; one of each program holds 89 at most"
    assert (check.detail, check.ok, check.fix) == (said, True, fix)
