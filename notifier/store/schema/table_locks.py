"""Changing tables while programs work: how long a lock is waited for, and how often.

A lock that is waited for stops everybody who comes later, and a long query or a backup keeps it waiting. So who
changes a table waits for a moment, lets through who waits behind it, and tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from notifier.domain.errors import ServiceUnavailable

T = TypeVar("T")

#: Less than the second after which Postgres looks for a deadlock: it is the change that gives way. Seconds.
LOCK_SECONDS, LOCK_PAUSE_SECONDS = 0.5, 1.0
#: So often; then the change is given up.
LOCK_TRIES = 60
#: "Lock not available" and "deadlock detected".
_IN_THE_WAY = ("55P03", "40P01")
_TABLES_IN_USE = (
    "a long transaction holds a table that is to be changed, so not everything is done: let it end "
    "(pg_stat_activity shows it), then run `notifier db upgrade` again"
)


def patiently(work: Callable[[], T], tries: int = LOCK_TRIES) -> T:
    """The result of `work`, which is tried again while somebody's lock is in its way.

    Raises:
        ServiceUnavailable: it was, each time.
    """
    while True:
        try:
            return work()
        except ServiceUnavailable as error:
            tries -= 1
            if not is_in_the_way(error):
                raise
            if tries <= 0:
                raise ServiceUnavailable(_TABLES_IN_USE) from error
        time.sleep(LOCK_PAUSE_SECONDS)


def is_in_the_way(error: ServiceUnavailable) -> bool:
    """Whether it says that somebody else has a lock on the table."""
    return getattr(getattr(error.__cause__, "orig", None), "sqlstate", None) in _IN_THE_WAY
