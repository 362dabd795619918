"""Tunes Python's garbage collector for this package's imports and for programs that run for long."""

from __future__ import annotations

import atexit
import gc

#: New objects before a collection, instead of 700: a batch makes tens of thousands, hardly any of them in cycles.
_OBJECTS_BEFORE_COLLECTION = 20_000
#: The same while a program starts. A whole command makes some hundred thousand objects, nearly all by its imports.
_OBJECTS_AT_START = 100_000


def spare_imports() -> None:
    """Collect less often. Call it before the imports: what they make stays, and going through it again and again
    took a tenth of the time of a command."""
    gc.set_threshold(_OBJECTS_AT_START, 10, 10)


def spare_exit() -> None:
    """Let the process give back its memory as it is. Call it once, at the start.

    At exit the interpreter looks several times for cycles in everything that was imported, which took a fifth of
    the time of a command. Code that opens files and connections closes them itself, and does not rely on this.
    """
    atexit.register(gc.freeze)


def tune_gc() -> None:
    """Tell the garbage collector that all present objects stay. Call it when a program has started.

    The libraries of a worker are 140 000 objects. A full collection that goes through them holds up every message
    for 100 ms. From here on only new objects are looked at.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION, 10, 10)
