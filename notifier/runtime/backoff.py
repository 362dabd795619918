"""Pauses while the database or the broker is away."""

from __future__ import annotations

#: They grow with each failure; the last one repeats. Seconds.
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)


def pause_seconds(failures: int) -> float:
    """How long to wait after this many earlier failures in a row, from 0."""
    return PAUSES[min(failures, len(PAUSES) - 1)]
