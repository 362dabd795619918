"""A worker hears of a signal whenever it comes. Whole programs: tests/chaos/test_endings.py."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest
from celery.apps.worker import Worker
from celery.worker import state

from notifier.runtime.shutdown import SIGNALS
from notifier.worker.process import OrderlyWorker


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_signal_that_came_before_celery_listens_ends_the_worker(
    monkeypatch: pytest.MonkeyPatch, has_begun: bool
) -> None:
    monkeypatch.setattr(Worker, "install_platform_tweaks", lambda *_: None)
    monkeypatch.setattr(state, "should_stop", None)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    worker: Any = OrderlyWorker.__new__(OrderlyWorker)
    worker.hostname = "worker@example.com"  # for its repr
    worker._ending = SimpleNamespace(has_begun=has_begun)
    try:
        worker.install_platform_tweaks(worker)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert state.should_stop == (0 if has_begun else None)
