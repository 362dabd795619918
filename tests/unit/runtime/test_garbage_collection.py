"""What a program does once it has started."""

from __future__ import annotations

import gc
import subprocess
import sys
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


#: What was registered first runs last.
_END = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 1000))
from notifier.runtime.garbage_collection import spare_exit
spare_exit()
print(gc.get_freeze_count() > 1000)
"""


def test_the_last_collections_do_not_go_through_what_was_imported() -> None:
    said = subprocess.run([sys.executable, "-c", _END], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True"]
