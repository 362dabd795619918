from __future__ import annotations

import pytest

from notifier.api.readiness import ASKED_SECONDS, Drain, Ready

READY = Ready(database="ok", tables="ok", broker="ok")


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def drain(now: list[float]) -> Drain:
    return Drain(8.0, clock=lambda: now[0])


def test_a_process_that_is_asked_says_that_it_ends_before_it_does(drain: Drain, now: list[float]) -> None:
    assert drain.asked(READY).is_ready
    drain.begin()
    now[0] += 7
    drain.begin()
    assert (drain.asked(READY).process, drain.asked(READY).is_ready, drain.is_over) == ("ending", False, False)
    now[0] += 1
    assert drain.is_over


def test_a_process_that_nobody_asks_ends_at_once(drain: Drain, now: list[float]) -> None:
    assert not drain.is_over
    drain.asked(READY)
    now[0] += ASKED_SECONDS
    drain.begin()
    assert drain.is_over
