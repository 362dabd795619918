"""`python -m bench.commands`: how soon `notifier up` is ready, and what commands cost that do little.

For each command: processor time and time by the clock, seconds, of whole processes. With `--notifier` of another
installation, such as one from a wheel.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from notifier.dev.machine import make_temporary_folder

_COMMANDS = ("--help", "search")
_PATIENCE_SECONDS = 120.0
_READY = re.compile(r"ready after ([\d.]+) s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.commands", description=__doc__)
    parser.add_argument(
        "--notifier", type=Path, default=Path(sys.executable).with_name("notifier"), metavar="PATH"
    )
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    folder = make_temporary_folder(None)
    # Most people keep byte code, so the commands must find it here as well.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["NOTIFIER_DATA_DIR"] = str(folder)
    try:
        with _up(options.notifier, environ, folder / "up.log") as ready:
            sys.stdout.write(f"up        ready after {ready:.1f} s\n")
            sys.stdout.write(f"{'':10}{'processor: min':>16}{'median':>8}{'max':>7}{'clock: median':>16}\n")
            for command in _COMMANDS:
                _cost(options.notifier, command, environ)  # warm-up
                costs = [_cost(options.notifier, command, environ) for _ in range(options.rounds)]
                used = sorted(cost for cost, _ in costs)
                clock = statistics.median(seconds for _, seconds in costs)
                sys.stdout.write(
                    f"{command:10}{used[0]:16.2f}{statistics.median(used):8.2f}{used[-1]:7.2f}{clock:16.2f}\n"
                )
                sys.stdout.flush()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _up(program: Path, environ: Mapping[str, str], log: Path) -> Iterator[float]:
    """The service runs during the block. Yields the seconds until it was ready, as it says itself."""
    with log.open("w") as output:
        running = subprocess.Popen([program, "up"], env=environ, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (ready := _READY.search(log.read_text())):
            if running.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"notifier up did not become ready:\n{log.read_text()}")
            time.sleep(0.05)
        yield float(ready[1])
    finally:
        running.terminate()
        running.wait()


def _cost(program: Path, command: str, environ: Mapping[str, str]) -> tuple[float, float]:
    """Seconds of processor time, and seconds by the clock."""
    begun = time.perf_counter()
    running = subprocess.Popen(
        [program, command], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, state, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(state)
    if running.returncode:
        sys.exit(f"notifier {command} ended with {running.returncode}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - begun


if __name__ == "__main__":
    main()
