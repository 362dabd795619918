"""CPU and memory of processes, sampled while something runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event, Thread
from time import monotonic

import psutil

_SAMPLE_SECONDS = 1.0
_MIB = 2**20


@dataclass(slots=True)
class Usage:
    """One named process with its children, over a span of time."""

    #: 100 is one core.
    cpu_percent: float = 0.0
    #: Resident memory at its highest: of the largest single process, and of all of them with what they share
    #: counted once (PSS) where the system tells.
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


@dataclass(slots=True)
class Sampler:
    """Fills `found`, name → usage."""

    pids: Mapping[str, int]
    found: dict[str, Usage] = field(default_factory=dict)
    _begun: float = 0.0
    _cpu_before: dict[str, dict[int, float]] = field(default_factory=dict)
    _cpu_after: dict[str, dict[int, float]] = field(default_factory=dict)

    def begin(self) -> None:
        """The span begins."""
        self._begun = monotonic()
        for name, pid in self.pids.items():
            self.found[name] = Usage()
            self._cpu_before[name] = {process.pid: _cpu_seconds(process) for process in _family(pid)}
            self._cpu_after[name] = dict(self._cpu_before[name])

    def sample(self) -> None:
        """Look once."""
        for name, pid in self.pids.items():
            usage, family = self.found[name], _family(pid)
            sizes = [_memory(process) for process in family]
            usage.largest_mb = max([usage.largest_mb, *(rss for rss, _ in sizes)])
            usage.total_mb = max(usage.total_mb, sum(pss for _, pss in sizes))
            usage.processes = max(usage.processes, len(family))
            for process in family:
                seconds = _cpu_seconds(process)
                # A process that ended keeps its last figure.
                before = self._cpu_after[name].get(process.pid, 0.0)
                self._cpu_after[name][process.pid] = max(seconds, before)

    def end(self) -> None:
        """The span ends."""
        self.sample()
        seconds = monotonic() - self._begun
        for name, usage in self.found.items():
            before = self._cpu_before[name]
            used = sum(after - before.get(pid, 0.0) for pid, after in self._cpu_after[name].items())
            usage.cpu_percent = 100 * used / seconds


@contextlib.contextmanager
def sampling(pids: Mapping[str, int]) -> Iterator[dict[str, Usage]]:
    """Sample while the block runs; the figures are complete after it."""
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


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _memory(process: psutil.Process) -> tuple[float, float]:
    """Resident, and its share of it."""
    try:
        resident = process.memory_info().rss / _MIB
    except psutil.NoSuchProcess:
        return 0.0, 0.0
    try:
        share = process.memory_full_info().pss / _MIB
    except (psutil.Error, AttributeError):
        share = resident
    return float(resident), float(share)
