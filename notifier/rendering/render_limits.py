"""Limits how long a rendering may compute, and how much it may produce.

Turns of loops, and calls of macros and files, are counted: nested loops take a list's length to the power of their
depth, so a template that works with 5 items might keep a worker busy for minutes with 20. Texts and lists are
counted as they are produced: nine `replace` in a row, or a text added to itself 30 times, would fill the memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2.environment import TemplateModule
from jinja2.exceptions import TemplateRuntimeError

#: Processor time, so that a busy machine fails no message: a large mail takes some milliseconds. Seconds.
MAX_SECONDS = 2.0
#: Total length of all texts that one rendering produces on its way: over thirty times what a part may hold.
MAX_CHARACTERS = 16_000_000
#: What an entry of a list, or a written piece, counts in addition to its text. Characters.
OVERHEAD = 32

#: Steps between two looks at the clock, which take as long as a few steps.
_STEPS = 50
#: Most macros have no more pieces than this.
_FEW = 64
#: The most that one character can become: four bytes, each as %F0. There must be room for that before a text is
#: made.
_GROWTH = 12
#: Characters of a text that is searched which count as one step.
_CHARACTERS_A_STEP = 100
#: What an entry adds to its list's text: quotes, a comma and a space.
_ENTRY = 8


class Limit:
    __slots__ = ("_ends", "_left", "_seconds", "characters")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends = time.thread_time() + seconds
        self._left = _STEPS
        #: Characters that may still be produced.
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
    """What is rendered inside has this many seconds in total, even if this is entered again inside. The amount
    produced is counted from zero again then, because the memory of one rendering is free before the next."""
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
    """Count steps. Raises `TemplateRuntimeError` if the time is over."""
    limit = current_limit.get()
    if limit is not None:
        limit.count(steps)


def count_turns(values: Any) -> None:
    """Like `count_step`, for all turns of a loop over these values, before its first turn."""
    # A value without a length comes from a filter, and is as long as any list.
    count_step(len(values) if hasattr(values, "__len__") else _STEPS)


def count_made(characters: int) -> None:
    """Count what was produced. Raises `TemplateRuntimeError` if it is more than allowed."""
    limit = current_limit.get()
    if limit is not None:
        limit.characters -= characters
        if limit.characters < 0:
            raise too_much()


def check_room(characters: int) -> None:
    """Like `count_made`, but before a text is made: a text that does not fit must not be made."""
    limit = current_limit.get()
    if limit is not None and characters > limit.characters:
        raise too_much()


def check_text(*values: Any) -> None:
    """Like `check_room`, for a text made of these values, with lists and objects written out."""
    limit = current_limit.get()
    if limit is not None:
        left = room = limit.characters // _GROWTH
        for value in values:
            left -= len(value) if isinstance(value, str) else _weigh(value, left)
            if left < 0:
                raise too_much()
        limit.count(1 + (room - left) // _CHARACTERS_A_STEP)


def count_value(value: Any) -> Any:
    """Count a value and return it unchanged. Raises `TemplateRuntimeError`."""
    if isinstance(value, str):
        count_made(len(value))
    elif isinstance(value, list | tuple | dict):
        count_made(OVERHEAD * len(value))
    return value


def concat(pieces: Iterable[str]) -> str:
    """What a macro, a block or a `{% set %}` writes, as one text."""
    if isinstance(pieces, list) and len(pieces) <= _FEW:
        # Joined first: values are counted when they are written, and constants are no longer than their files.
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
    """Length of a value as text; if it is more than `most`, some number above `most`. A list that occurs many
    times inside another counts each time: it takes no memory, but is long as text and slow to compare."""
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
