"""Shows what the programs of `notifier up` log, as it comes, short enough for a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event, Thread

#: A line of the format "text". What is the same in every line, or already shown before it, is left out.
_LINE = re.compile(r"\d{4}-\d\d-\d\dT(?P<time>\d\d:\d\d:\d\d)\.\d+Z \[(?P<level>\w+) *\] (?P<event>.*)")
_SAME_IN_ALL = re.compile(r" \[[\w.]+\](?= |$)| program=[\w-]+(?= |$)")
_SECONDS = 0.3

#: Called with a line and its level (info, warning, …); "" for a line of another format.
Show = Callable[[str, str], None]


class LogFollower:
    """Shows what is written to these logs from now on, each line with its program, until `stop` is set."""

    def __init__(self, logs: Mapping[str, Path], stop: Event, show: Show) -> None:
        self._stop = stop
        self._show = show
        self._width = max(map(len, logs))
        self._threads = [
            Thread(target=self._follow, args=(name, path, _size(path)), daemon=True) for name, path in logs.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Return when everything that was logged before `stop` is shown."""
        for thread in self._threads:
            thread.join(timeout=5)

    def _follow(self, name: str, path: Path, position: int) -> None:
        with path.open("r", encoding="utf-8", errors="replace") as file:
            file.seek(position)
            while True:
                last_round = self._stop.wait(_SECONDS)
                for line in file:
                    self._show(*short(f"{name:<{self._width}}", line.rstrip()))
                if last_round:
                    return


def short(program: str, line: str) -> tuple[str, str]:
    """The line after its time and program, without what every line has; and its level."""
    found = _LINE.fullmatch(line)
    if found is None:
        return f"{'':8} {program}  {line}", ""
    level = found["level"]
    event = _SAME_IN_ALL.sub("", found["event"])
    return f"{found['time']} {program}  {'' if level == 'info' else level + ': '}{event}", level


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
