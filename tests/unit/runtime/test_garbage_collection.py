"""What a program does once it has started."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from notifier.runtime.garbage_collection import tune_gc


@pytest.fixture
def collector() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_a_full_collection_does_not_look_at_what_was_there_at_the_start(collector: None) -> None:
    there = len(gc.get_objects())
    tune_gc()
    assert gc.get_freeze_count() >= there
    assert len(gc.get_objects()) < there / 100


def test_cycles_that_are_made_later_are_still_collected(collector: None) -> None:
    tune_gc()
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1
