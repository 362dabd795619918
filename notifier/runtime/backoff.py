"""Pauses between tries while the database or the broker is away."""

from __future__ import annotations

#: Pauses grow with each failure; the last one repeats. Seconds.
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)


def pause_seconds(failures: int) -> float:
    """The pause after this many earlier failures in a row, from 0. Seconds."""
    return PAUSES[min(failures, len(PAUSES) - 1)]
