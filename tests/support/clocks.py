"""Wall clocks of programs that a test steps while they run, as an administrator or a bad time server would.

libfaketime is loaded into a program before everything else, and answers in place of the kernel's clock. It reads
its offset from a file at each call. The monotonic clock runs on, as it does in a real step.
"""

from __future__ import annotations

import os
from pathlib import Path

# Not libfaketimeMT, the variant for programs with threads: its lock makes them several times slower, and Python's
# own lock already separates nearly all of their calls.
_PATTERNS = ("usr/lib/*/faketime/libfaketime.so.1", "usr/lib*/faketime/libfaketime.so.1")
_SITE = Path(__file__).with_name("stepped")


def find_faketime() -> Path | None:
    """The path of the library; None if it is not installed."""
    return next((path for pattern in _PATTERNS for path in Path("/").glob(pattern)), None)


class Clocks:
    """One clock for each name. A clock is right until it is stepped."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = library
        self._folder = folder
        folder.mkdir()

    def environment(self, name: str) -> dict[str, str]:
        """Variables that put a program under the clock of this name."""
        self.step(name, hours=0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._folder / name),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Times of files stay right.
            "NO_FAKE_STAT": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_SITE), os.environ.get("PYTHONPATH")))),
        }

    def step(self, name: str, *, hours: float) -> None:
        """From now on this clock differs by this much from the right time. Negative: it is behind."""
        unfinished = self._folder / f"{name}.part"
        unfinished.write_text(f"{hours:+}h\n", "ascii")
        unfinished.rename(self._folder / name)
