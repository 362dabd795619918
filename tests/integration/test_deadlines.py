"""Deadlines of tests: they end, and they move away while the machine is slow."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.waiting import PATIENCE, Deadline, patient, slowness, wait_until


def test_waiting_ends_with_the_last_value() -> None:
    values = iter([0, 0, 7])

    assert wait_until(lambda: next(values), every=0) == 7
    with pytest.raises(AssertionError, match="was still 0 after"):
        wait_until(lambda: 0, timeout=0.01, every=0.001)


def test_a_busy_machine_is_slow_and_has_later_deadlines() -> None:
    with busy_loops(4 * (os.cpu_count() or 1)):
        wait_until(lambda: slowness(fresh=True) > 2)
        deadline = Deadline(0.2)
        wait_until(lambda: deadline.remaining <= 0)
        assert not deadline.is_over()
        assert "times slower" in str(deadline)


def test_patience_stretches_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "1000")

    assert patient(1) >= 1000
    assert Deadline(1).remaining > 900


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
