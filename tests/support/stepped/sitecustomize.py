"""Loaded by Python at its start, in programs whose clock a test steps."""

from __future__ import annotations

import threading
import time


def _sleep(seconds: float) -> None:
    if seconds > 0:
        threading.Event().wait(seconds)


# time.sleep calls clock_nanosleep with a time of the monotonic clock. libfaketime 0.9.10 breaks that with EINVAL,
# even if it is told to leave that clock alone. Waiting for an event works differently.
time.sleep = _sleep  # type: ignore[assignment]
