"""Restricts everything that takes part to fewer cores, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil


def available() -> int:
    """Cores that this process may use; 0 if the system does not pin processes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


@contextlib.contextmanager
def only(count: int, pids: Sequence[int]) -> Iterator[None]:
    """Pin the calling thread, `pids` and their descendants to `count` cores. Processes that start during the block
    inherit this.

    Linux only: see `available`.
    """
    before = os.sched_getaffinity(0)
    _pin(pids, set(sorted(before)[:count]))
    try:
        yield
    finally:
        _pin(pids, before)


def _pin(pids: Sequence[int], cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            for member in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                _pin_threads(member.pid, cores)


def _pin_threads(pid: int, cores: set[int]) -> None:
    """Pin all threads. Each thread has its own mask; a new thread inherits that of the thread that made it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)
