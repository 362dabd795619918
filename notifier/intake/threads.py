"""Runs a thread for each lane or queue, for the readers of both brokers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event


def run_together(parts: Sequence[Callable[[], None]], stop: Event) -> None:
    """Run each part in a thread until all have ended. If a part fails, the others are stopped and its error is
    raised, because a queue that nobody reads must not go unnoticed."""
    with ThreadPoolExecutor(len(parts)) as threads:
        running = [threads.submit(part) for part in parts]
        ended, _ = wait(running, return_when=FIRST_EXCEPTION)
        if any(part.exception() for part in ended):
            stop.set()
    for part in running:
        part.result()
