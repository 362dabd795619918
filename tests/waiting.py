"""Waiting for something that happens in another process, with a deadline instead of a sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 10, *, every: float = 0.02) -> T:
    """Call `condition` until what it returns is true, and return that.

    Raises:
        AssertionError: after `timeout` seconds, with the last value; an error of the condition passes through.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            what = getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"{what} was still {value!r} after {timeout:g} s")
        time.sleep(every)
