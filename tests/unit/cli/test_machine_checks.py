"""What `notifier doctor` says about the machine's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from notifier.cli.machine_checks import judge_clock

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("apart", "is_ok", "said"),
    [
        (-4.0, True, "this machine's and the database's agree to 5 s"),
        (
            20.0,
            True,
            "this machine's is 20 s ahead of the database's: 2026-11-30 12:00:20 against 2026-11-30 12:00:00 UTC",
        ),
        (
            -3600.0,
            False,
            "this machine's is 3600 s behind the database's: 2026-11-30 11:00:00 against 2026-11-30 12:00:00 UTC",
        ),
    ],
)
def test_a_clock_is_held_against_the_databases(apart: float, is_ok: bool, said: str) -> None:
    check = judge_clock(NOON + timedelta(seconds=apart), NOON)
    assert (check.ok, check.detail) == (is_ok, said)
    assert bool(check.fix) is ("agree" not in said)
