"""The pauses before a process that died is started again."""

from __future__ import annotations

from notifier.dev.restarts import HEALTHY_SECONDS, Restarts


def test_pauses_grow_with_deaths_in_a_row_and_begin_anew_after_a_healthy_run() -> None:
    restarts, now = Restarts((0.5, 2.0)), 0.0
    restarts.started(now)
    for expected in (0.5, 2.0, 2.0):
        assert restarts.died(now) == expected
        assert restarts.due_at == now + expected
        now += expected
        restarts.started(now)
        assert restarts.due_at is None
    now += HEALTHY_SECONDS + 1
    assert restarts.died(now) == 0.5
