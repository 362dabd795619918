"""The receiving servers as processes of ours, and how much they have accepted."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.postfix import Postfix
from notifier.dev.machine import free_port, is_free
from notifier.dev.processes import ServerProcess

_COUNT = re.compile(rb"mesg=\s*(\d+)")
#: smtp-sink repeats its counters for each mail; this much of the end certainly contains them.
_TAIL_BYTES = 400
_START_SECONDS = 10.0
#: The server's limit on connections must not influence a measurement.
_CONNECTIONS = 2000


@dataclass(frozen=True, slots=True)
class Sink:
    """One running server."""

    port: int
    pid: int
    _output: Path
    #: The file with the times of single mails, if they are recorded.
    record: Path | None = None

    def taken(self) -> int:
        """Mails accepted so far."""
        with self._output.open("rb") as output:
            output.seek(0, os.SEEK_END)
            output.seek(max(0, output.tell() - _TAIL_BYTES))
            found = _COUNT.findall(output.read())
        return int(found[-1]) if found else 0

    def latencies(self, label: str) -> list[float]:
        """Milliseconds from publishing to acceptance for every mail with that label, in order of acceptance."""
        assert self.record is not None
        lines = (line.split() for line in self.record.read_text("ascii").splitlines())
        return [float(parts[1]) for parts in lines if len(parts) == 2 and parts[0] == label]


@contextlib.contextmanager
def smtp_sink(postfix: Postfix, folder: Path) -> Iterator[Sink]:
    """Postfix's `smtp-sink`: the fastest server there is."""
    port = free_port()
    # As root, it requires a user to switch to.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [str(postfix.sink), "-4", "-c", "-m", str(_CONNECTIONS), *user, f"127.0.0.1:{port}", "1024"]
    with _running(command, postfix.environment, port, folder) as sink:
        yield sink


@contextlib.contextmanager
def timed_sink(folder: Path, *, delay_seconds: float = 0.0) -> Iterator[Sink]:
    """`bench.timed_sink`, which can take its time, or report it."""
    port = free_port()
    record = folder / f"latencies-{port}.txt"
    command = [
        *(sys.executable, "-m", "bench.timed_sink", str(port)),
        *("--delay", str(delay_seconds), "--record", str(record)),
    ]
    with _running(command, os.environ, port, folder, record) as sink:
        yield sink


@contextlib.contextmanager
def slow_twilio(folder: Path, *, delay_seconds: float) -> Iterator[Sink]:
    """The local Twilio, as slow as the real one."""
    port = free_port()
    command = [sys.executable, "-m", "bench.slow_twilio", str(port), "--delay", str(delay_seconds)]
    with _running(command, os.environ, port, folder) as sink:
        yield sink


@contextlib.contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], port: int, folder: Path, record: Path | None = None
) -> Iterator[Sink]:
    output = folder / f"sink-{port}-{time.monotonic_ns()}.out"
    process = ServerProcess(
        "receiving server",
        command,
        log=output,
        stop_plan=[(signal.SIGTERM, 5.0)],
        cwd=Path(__file__).parents[1],
        env=environment,
    )
    process.start()
    try:
        process.wait_until(lambda: not is_free(port), _START_SECONDS)
        assert process.pid is not None
        yield Sink(port, process.pid, output, record)
    finally:
        process.stop()
        output.unlink(missing_ok=True)
