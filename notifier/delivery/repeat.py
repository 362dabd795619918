"""Repeats a database statement whose answer may be lost, until it is answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from threading import Event
from typing import TypeVar

from notifier.domain.errors import ServiceUnavailable
from notifier.runtime.backoff import pause_seconds
from notifier.store.engine import unprepared

T = TypeVar("T")


def until_answered(work: Callable[[bool], T], *, gives_up_at: float, stop: Event | None = None) -> T:
    """Call `work(again)` until it returns, and return its result. `again` is False the first time, and True when
    the work may have been done already. `gives_up_at` is on the monotonic clock. Once `stop` is set, there is no
    other try, and a pause ends at once.

    Raises:
        ServiceUnavailable: there was no answer until then; the work may have been done.
    """
    tries = 0
    while True:
        try:
            with unprepared() if tries else nullcontext():
                return work(tries > 0)
        except ServiceUnavailable:
            if time.monotonic() > gives_up_at or _ends_meanwhile(tries, stop):
                raise
        tries += 1


def _ends_meanwhile(tries: int, stop: Event | None) -> bool:
    if stop is not None:
        return stop.wait(pause_seconds(tries))
    time.sleep(pause_seconds(tries))
    return False
