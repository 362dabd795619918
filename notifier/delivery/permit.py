"""Leave to call a provider under the rate limits."""

from __future__ import annotations

import time
from dataclasses import dataclass

#: A call that starts later than this after its turn would come on top of others' turns: it takes a new one.
#: Seconds; also the share by which a limit per second may be exceeded.
LATE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Units per second of one provider or one sender identity."""

    scope: str
    per_second: float


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to call: not before `not_before` on the monotonic clock, and not much later."""

    not_before: float = 0.0
    #: The limits in which it holds a turn, with its units; without any it is never late.
    turns: tuple[tuple[RateLimit, int], ...] = ()

    @property
    def is_late(self) -> bool:
        """Whether its turn has passed."""
        return bool(self.turns) and time.monotonic() > self.not_before + LATE_SECONDS
