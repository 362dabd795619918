"""Loaded by Python at its start, in the programs whose clock a test steps."""

from __future__ import annotations

import threading
import time


def _sleep(seconds: float) -> None:
    if seconds > 0:
        threading.Event().wait(seconds)


# time.sleep waits with clock_nanosleep for a moment of the monotonic clock, which libfaketime 0.9.10 spoils even
# when it is told to leave that clock alone: EINVAL. A wait for an event takes another way.
time.sleep = _sleep  # type: ignore[assignment]
