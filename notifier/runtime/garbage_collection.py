"""Python's garbage collector, set for what this package imports and for programs that run for long."""

from __future__ import annotations

import atexit
import gc

#: New objects before a collection, instead of 700: a batch makes tens of thousands, and hardly any is in a cycle.
_OBJECTS_BEFORE_COLLECTION = 20_000
#: While a program starts. All of a command makes some hundred thousand, nearly all by its imports.
_OBJECTS_AT_START = 100_000


def spare_imports() -> None:
    """Collect less often. Call it before the imports: what they make stays, and going through it again and again
    took a tenth of the time of a command."""
    gc.set_threshold(_OBJECTS_AT_START, 10, 10)


def spare_exit() -> None:
    """Let the process give back its memory as it is. Call it once, at the start.

    At its end the interpreter looks several times for cycles in everything that was imported, which took a fifth
    of the time of a command. Files and connections are closed by who opened them, and do not wait for that.
    """
    atexit.register(gc.freeze)


def tune_gc() -> None:
    """Tell the garbage collector that what exists now stays. Call it when a program has started.

    The libraries of a worker are 140 000 objects; a full collection that goes through them holds every message up
    for 100 ms. Only what comes from here on is looked at.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION, 10, 10)
