"""When a process that died is started again: after pauses that grow with each death in a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: A process that ran this long is healthy: its next death counts as the first. Seconds.
HEALTHY_SECONDS = 60.0


@dataclass(slots=True)
class Restarts:
    """Of one process. Moments are those of `time.monotonic()`."""

    #: Seconds before each start after a death; the last one repeats.
    pauses: Sequence[float]
    #: In a row.
    deaths: int = 0
    #: None: it is not known to be dead.
    due_at: float | None = None
    _started_at: float = -math.inf

    def started(self, now: float) -> None:
        self._started_at, self.due_at = now, None

    def died(self, now: float) -> float:
        """The pause before it is due. Seconds."""
        self.deaths = 1 if now - self._started_at > HEALTHY_SECONDS else self.deaths + 1
        pause = self.pauses[min(self.deaths, len(self.pauses)) - 1]
        self.due_at = now + pause
        return pause

    def give_up(self) -> None:
        """It is never due, until it was started all the same."""
        self.due_at = math.inf
