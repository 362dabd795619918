from __future__ import annotations

import pytest

from notifier.telemetry.liveness import LIMIT_SECONDS, Liveness


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def liveness(now: list[float]) -> Liveness:
    return Liveness(clock=lambda: now[0])


def test_a_loop_that_has_not_turned_within_the_limit_is_stalled(liveness: Liveness, now: list[float]) -> None:
    liveness.turned("tasks")
    now[0] += LIMIT_SECONDS / 2
    liveness.turned("delivery-loop")
    now[0] += LIMIT_SECONDS / 2
    assert liveness.stalled() == {}
    now[0] += 1
    assert liveness.stalled() == {"tasks": LIMIT_SECONDS + 1}
    liveness.turned("tasks")
    assert liveness.stalled() == {}


def test_a_loop_that_waits_for_the_broker_or_has_ended_need_not_turn(liveness: Liveness, now: list[float]) -> None:
    liveness.turned("tasks")
    with liveness.paused("tasks"):
        now[0] += 10 * LIMIT_SECONDS
        assert liveness.stalled() == {}
    now[0] += LIMIT_SECONDS + 1
    assert list(liveness.stalled()) == ["tasks"]
    liveness.ended("tasks")
    assert liveness.stalled() == {}
