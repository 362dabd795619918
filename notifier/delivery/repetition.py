"""Statements whose answer may be lost are repeated until one is answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from notifier.errors import ServiceUnavailable
from notifier.store.engine import unprepared

#: Pauses between tries while the database is away; the last one repeats. Seconds.
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)

T = TypeVar("T")


def pause(tries: int) -> None:
    """Sleep after the `tries`-th try, from 0."""
    time.sleep(PAUSES[min(tries, len(PAUSES) - 1)])


def until_answered(work: Callable[[bool], T], *, gives_up_at: float) -> T:
    """`work(again)`: False the first time, True when it may have been done already. `gives_up_at` on the monotonic
    clock.

    Raises:
        ServiceUnavailable: there was no answer until then; it may have been done.
    """
    try:
        return work(False)
    except ServiceUnavailable:
        if time.monotonic() > gives_up_at:
            raise
    tries = 0
    while True:
        pause(tries)
        tries += 1
        try:
            with unprepared():
                return work(True)
        except ServiceUnavailable:
            if time.monotonic() > gives_up_at:
                raise
