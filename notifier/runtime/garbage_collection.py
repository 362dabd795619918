"""Python's garbage collector, set for programs that run for long."""

from __future__ import annotations

import gc

#: New objects before a collection, instead of 700: a batch makes tens of thousands, and hardly any is in a cycle.
_OBJECTS_BEFORE_COLLECTION = 20_000


def tune_gc() -> None:
    """Tell the garbage collector that what exists now stays. Call it when a program has started.

    The libraries of a worker are 140 000 objects; a full collection that goes through them holds every message up
    for 100 ms. Only what comes from here on is looked at.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION, 10, 10)
