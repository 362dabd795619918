"""How long a rendering may compute, and how much it may make.

Turns of loops are counted, and calls of macros and files: loops within loops take a list's length to the power of
their depth, so that a template that works with 5 items might keep a worker busy for minutes with 20. Texts and
lists are counted as they are made: nine `replace` in a row, or a text added to itself 30 times, would fill the
memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2.environment import TemplateModule
from jinja2.exceptions import TemplateRuntimeError

#: Of the processor, so that a busy machine fails no message: a large mail takes some milliseconds. Seconds.
MAX_SECONDS = 2.0
#: Of all texts that one rendering makes on its way, together: over thirty times what a part may hold.
MAX_CHARACTERS = 16_000_000
#: What an entry of a list, or a piece that is written, is counted for besides its text. Characters.
OVERHEAD = 32

#: Steps between two looks at the clock, which takes as long as some of them.
_STEPS = 50
#: Pieces of most macros.
_FEW = 64
#: What one character becomes at most: four bytes, each as %F0. What text is made of must leave room for it.
_GROWTH = 12
#: Of a text that is looked through.
_CHARACTERS_A_STEP = 100
#: What an entry adds to its list's text, as quotes, a comma and a space.
_ENTRY = 8


class Limit:
    __slots__ = ("_ends", "_left", "_seconds", "characters")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends = time.thread_time() + seconds
        self._left = _STEPS
        #: May still be made.
        self.characters = MAX_CHARACTERS

    def count(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            self._left = _STEPS
            if time.thread_time() > self._ends:
                raise TemplateRuntimeError(
                    f"it computes for more than {self._seconds:g} seconds: loop over less, or not within loops"
                )


current_limit: ContextVar[Limit | None] = ContextVar("limit", default=None)


@contextmanager
def limited_time(seconds: float = MAX_SECONDS) -> Iterator[None]:
    """What is rendered within has so many seconds in all, also if this is entered again within. What it makes is
    counted anew then: the memory of one rendering is free before the next."""
    limit = current_limit.get()
    if limit is not None:
        limit.characters = MAX_CHARACTERS
        yield
        return
    token = current_limit.set(Limit(seconds))
    try:
        yield
    finally:
        current_limit.reset(token)


def count_step(steps: int = 1) -> None:
    """Raises `TemplateRuntimeError` if the time is over."""
    limit = current_limit.get()
    if limit is not None:
        limit.count(steps)


def count_turns(values: Any) -> None:
    """As `count_step`, for a loop over these values, before its first turn."""
    # What has no length is of a filter, as long as any list.
    count_step(len(values) if hasattr(values, "__len__") else _STEPS)


def count_made(characters: int) -> None:
    """Raises `TemplateRuntimeError` if that is more than may still be made."""
    limit = current_limit.get()
    if limit is not None:
        limit.characters -= characters
        if limit.characters < 0:
            raise too_much()


def check_room(characters: int) -> None:
    """As `count_made`, of what is only going to be made: a text that does not fit must not come to be."""
    limit = current_limit.get()
    if limit is not None and characters > limit.characters:
        raise too_much()


def check_text(*values: Any) -> None:
    """As `check_room`, of a text that is made of these values, lists and objects written out."""
    limit = current_limit.get()
    if limit is not None:
        left = room = limit.characters // _GROWTH
        for value in values:
            left -= len(value) if isinstance(value, str) else _weigh(value, left)
            if left < 0:
                raise too_much()
        limit.count(1 + (room - left) // _CHARACTERS_A_STEP)


def count_value(value: Any) -> Any:
    """The value as it is, once it is counted. Raises `TemplateRuntimeError`."""
    if isinstance(value, str):
        count_made(len(value))
    elif isinstance(value, list | tuple | dict):
        count_made(OVERHEAD * len(value))
    return value


def concat(pieces: Iterable[str]) -> str:
    """What a macro, a block or a `{% set %}` writes, as one text."""
    if isinstance(pieces, list) and len(pieces) <= _FEW:
        # Joined first: values are counted when they are written, and so few constants are no longer than files.
        text = "".join(pieces)
        limit = current_limit.get()
        if limit is not None:
            limit.characters -= len(text)
            if limit.characters < 0:
                raise too_much()
        return text
    kept = []
    for piece in pieces:
        count_made(len(piece) + OVERHEAD)
        kept.append(piece)
    return "".join(kept)


def _weigh(value: Any, most: int) -> int:
    """Characters of a value as text; more than `most` if there are more. A list that is in another many times
    makes it long as text, and slow to compare, but takes no memory: so each time counts."""
    weight, waiting = 0, [value]
    while waiting and weight <= most:
        one = waiting.pop()
        if isinstance(one, str):
            weight += len(one)
        elif isinstance(one, list | tuple | dict):
            weight += _ENTRY * len(one)
            if weight <= most:
                waiting += one
                waiting += one.values() if isinstance(one, dict) else ()
        elif isinstance(one, TemplateModule):
            raise TemplateRuntimeError("a file that is imported is no text: call its macros, or include it")
    return weight


def too_much() -> TemplateRuntimeError:
    return TemplateRuntimeError(
        f"it makes more than {MAX_CHARACTERS:,} characters of text on its way: "
        "repeat, replace or join less, or not within loops"
    )
