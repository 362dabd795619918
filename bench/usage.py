"""Processor time and memory of processes while something runs.

Memory is sampled. Processor time is not: when a process ends, the kernel adds its time to its parent's. So the sum
over a family, including reaped members, only grows, and no process is too short-lived to count (for example
PostgreSQL's backend for one statement). This holds on Linux; on other systems ended processes are missed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic, process_time

import psutil

_SAMPLE_SECONDS = 1.0
#: How much of the machine others used, besides the watched processes and us: the less it is, the more a figure is
#: worth.
OTHERS = "(others)"
_MIB = 2**20


@dataclass(slots=True)
class Usage:
    """One named process with its children, over a span of time."""

    #: 100 is one core.
    cpu_percent: float = 0.0
    cpu_seconds: float = 0.0
    #: Highest resident memory: of the largest single process, and of all of them with shared memory counted once
    #: (PSS), if the system says.
    largest_mb: float = 0.0
    total_mb: float = 0.0
    processes: int = 0

    def as_json(self) -> dict[str, float]:
        """Rounded."""
        return {
            "cpu_percent": round(self.cpu_percent, 1),
            "largest_mb": round(self.largest_mb, 1),
            "total_mb": round(self.total_mb, 1),
            "processes": self.processes,
        }


class Sampler:
    """Fills `found`, name → usage. `pids`: name → process id."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self.found = {name: Usage() for name in pids}
        self._begun = 0.0
        self._before: dict[str, float] = {}
        self._all_before = 0.0

    def begin(self) -> None:
        """Begin the span."""
        self._before = {name: family_cpu_seconds(pid) for name, pid in self._pids.items()}
        self._all_before = _busy_seconds() - process_time()
        self._begun = monotonic()

    def sample(self) -> None:
        """Sample the memory once."""
        for name, pid in self._pids.items():
            usage, family = self.found[name], _family(pid)
            sizes = [_memory(process) for process in family]
            usage.largest_mb = max([usage.largest_mb, *(rss for rss, _ in sizes)])
            usage.total_mb = max(usage.total_mb, sum(pss for _, pss in sizes))
            usage.processes = max(usage.processes, len(family))

    def end(self) -> None:
        """End the span. A process whose whole family is gone by now counts nothing."""
        seconds = monotonic() - self._begun
        for name, pid in self._pids.items():
            usage = self.found[name]
            usage.cpu_seconds = max(0.0, family_cpu_seconds(pid) - self._before[name])
            usage.cpu_percent = 100 * usage.cpu_seconds / seconds
        all_seconds = _busy_seconds() - process_time() - self._all_before
        others = max(0.0, all_seconds - sum(usage.cpu_seconds for usage in self.found.values()))
        self.sample()
        self.found[OTHERS] = Usage(cpu_percent=100 * others / seconds, cpu_seconds=others)


@contextlib.contextmanager
def sampling(pids: Mapping[str, int]) -> Iterator[dict[str, Usage]]:
    """Sample while the block runs. The figures are complete after it."""
    sampler = Sampler(pids)
    stop = Event()

    def run() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            sampler.sample()

    sampler.begin()
    thread = Thread(target=run, name="usage", daemon=True)
    thread.start()
    try:
        yield sampler.found
    finally:
        stop.set()
        thread.join()
        sampler.end()


def memory_mb(pid: int) -> float:
    """Resident memory of one process; 0 if it is gone."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / _MIB
    except psutil.NoSuchProcess:
        return 0.0


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _busy_seconds() -> float:
    """Busy time of all cores together, whoever used them."""
    times = psutil.cpu_times()
    spent = times.user + times.system + sum(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq"))
    return float(spent)


def family_cpu_seconds(pid: int) -> float:
    """Processor time of a process, of its living descendants, and of all their ended descendants."""
    spent = 0.0
    # Parents last: a child that ends during this is counted there, unless it was counted itself.
    for process in reversed(_family(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent += times.user + times.system + times.children_user + times.children_system
    return spent


def _memory(process: psutil.Process) -> tuple[float, float]:
    """Resident memory, and its proportional share."""
    try:
        resident = process.memory_info().rss / _MIB
    except psutil.NoSuchProcess:
        return 0.0, 0.0
    try:
        share = process.memory_full_info().pss / _MIB
    except (psutil.Error, AttributeError):
        share = resident
    return float(resident), float(share)
