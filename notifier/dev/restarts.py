"""Decides when a process that died is started again: after pauses that grow with each death in a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: A process that ran this long is healthy: its next death counts as the first. Seconds.
HEALTHY_SECONDS = 60.0


@dataclass(slots=True)
class Restarts:
    """The restarts of one process. Times are those of `time.monotonic()`."""

    #: Seconds before each restart after a death; the last one repeats.
    pauses: Sequence[float]
    #: Deaths in a row.
    deaths: int = 0
    #: When it is to be restarted; None: it is not known to be dead.
    due_at: float | None = None
    _started_at: float = -math.inf

    def started(self, now: float) -> None:
        self._started_at, self.due_at = now, None

    def died(self, now: float) -> float:
        """Note a death. Returns the seconds until the restart."""
        self.deaths = 1 if now - self._started_at > HEALTHY_SECONDS else self.deaths + 1
        pause = self.pauses[min(self.deaths, len(self.pauses)) - 1]
        self.due_at = now + pause
        return pause

    def give_up(self) -> None:
        """It is no longer due, unless somebody starts it all the same."""
        self.due_at = math.inf
