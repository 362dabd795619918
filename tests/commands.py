"""What the commands of this repository that start servers of their own have in common: `chaos` and `bench`."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

from tests.services import MissingService


def say(text: str) -> None:
    """A line of progress, at once also where the output goes into a file."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run_in_order(work: Callable[[], int]) -> int:
    """The exit code of `work`; a Ctrl-C or SIGTERM ends everything that it has started, too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.disable(logging.WARNING)
    try:
        return work()
    except MissingService as missing:
        say(str(missing))
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130
