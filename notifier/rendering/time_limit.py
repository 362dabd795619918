"""How long a template may compute. Turns of loops are counted, and calls of macros and files.

Loops within loops take a list's length to the power of their depth: a template that works with 5 items might keep
a worker busy for minutes with 20.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import TemplateRuntimeError

#: Of the processor, so that a busy machine fails no message: a large mail takes some milliseconds. Seconds.
MAX_SECONDS = 2.0
#: Steps between two looks at the clock, which takes as long as some of them.
_STEPS = 50
#: Of the filter around what a loop goes through. No template can name it.
LOOP_FILTER = " turns"


class _Limit:
    __slots__ = ("_ends", "_left", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends = time.thread_time() + seconds
        self._left = _STEPS

    def count(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            self._left = _STEPS
            if time.thread_time() > self._ends:
                raise TemplateRuntimeError(
                    f"it computes for more than {self._seconds:g} seconds: loop over less, or not within loops"
                )


_limit: ContextVar[_Limit | None] = ContextVar("limit", default=None)


@contextmanager
def limited_time(seconds: float = MAX_SECONDS) -> Iterator[None]:
    """What is rendered within has so many seconds in all, also if this is entered again within."""
    if _limit.get() is not None:
        yield
        return
    token = _limit.set(_Limit(seconds))
    try:
        yield
    finally:
        _limit.reset(token)


def count_step(steps: int = 1) -> None:
    """Raises `TemplateRuntimeError` if the time is over."""
    limit = _limit.get()
    if limit is not None:
        limit.count(steps)


@pass_context  # or Jinja would go through lists of constants when it compiles
def turns(_: Any, values: Any) -> Any:
    """What a loop goes through, as it is. Its turns are counted before the first."""
    # What has no length is of a filter, as long as any list.
    count_step(len(values) if hasattr(values, "__len__") else _STEPS)
    return values


def count_turns(tree: nodes.Template) -> None:
    """Have every loop of the template counted, in place."""
    for loop in tree.find_all(nodes.For):
        loop.iter = nodes.Filter(loop.iter, LOOP_FILTER, [], [], None, None, lineno=loop.lineno)
