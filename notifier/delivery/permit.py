"""Leave to call a provider under the rate limits."""

from __future__ import annotations

import time
from dataclasses import dataclass

#: A call that begins later than this after its turn would come on top of the turns of others: it takes a new one.
#: Seconds; of a limit a second, that is the share by which it may be exceeded.
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
    #: The limits that it holds a turn of, and how many units; without any it never is too late.
    turns: tuple[tuple[RateLimit, int], ...] = ()

    @property
    def is_late(self) -> bool:
        """Whether its turn has passed."""
        return bool(self.turns) and time.monotonic() > self.not_before + LATE_SECONDS
