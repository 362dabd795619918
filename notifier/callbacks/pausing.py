"""When an endpoint is called again: a pure decision."""

from __future__ import annotations

from notifier.domain.statuses import CallbackFailure

#: The first pause; it doubles with each call up to the second. Seconds.
FIRST_SECONDS, MAX_SECONDS = 5.0, 3600.0
#: A callback is parked after this. Seconds.
DEADLINE_SECONDS = 86_400.0

_FOR_GOOD = (CallbackFailure.GONE, CallbackFailure.NOT_IN_RECORD)


def pause_after(
    failure: CallbackFailure, tries: int, age_seconds: float, retry_after_seconds: float | None, chance: float
) -> float | None:
    """Seconds until the next call after call number `tries`; None: it is parked. Half of the pause is fixed and
    half of it is by `chance` (0 to 1); it is at least as long as the endpoint asked for."""
    if failure in _FOR_GOOD:
        return None
    longest = min(FIRST_SECONDS * 2.0 ** min(tries - 1, 30), MAX_SECONDS)
    pause = max(longest * (0.5 + chance / 2), retry_after_seconds or 0.0)
    return pause if age_seconds + pause <= DEADLINE_SECONDS else None
