"""What the commands of this repository that start servers have in common: `chaos`, `bench`, `package`."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

from tests.provisioning.services import MissingService
from tests.provisioning.session import Session
from tests.support import forking


def say(text: str) -> None:
    """A line of progress, at once also where the output goes into a file."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run_in_order(work: Callable[[], int]) -> int:
    """The exit code of `work`, not 0 if something of ours stays; Ctrl-C and SIGTERM end all that was started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.disable(logging.WARNING)
    session = Session(say)
    try:
        code = work()
    except MissingService as missing:
        say(str(missing))
        code = 2
    except KeyboardInterrupt:
        say("stopped")
        code = 130
    finally:
        forking.close()
        left = session.close()
    if left:
        say("left behind, ended now:\n" + "\n".join(left))
    return code or bool(left)
