"""Changes tables while programs work: how long to wait for a lock, and how often to try.

While a change waits for its lock, behind a long query or a backup, everybody else waits behind the change. So it
waits only a moment, lets the others through, and tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from notifier.domain.errors import ServiceUnavailable
from notifier.store.database_errors import DEADLOCK, LOCK_NOT_AVAILABLE, sqlstate_of

T = TypeVar("T")

#: Less than the second after which Postgres looks for a deadlock, so that the change gives way first. Seconds.
LOCK_SECONDS, LOCK_PAUSE_SECONDS = 0.5, 1.0
LOCK_TRIES = 60
_TABLES_IN_USE = (
    "a long transaction holds a table that is to be changed, so not everything is done: let it end "
    "(pg_stat_activity shows it), then run `notifier db upgrade` again"
)


def patiently(work: Callable[[], T], tries: int = LOCK_TRIES) -> T:
    """The result of `work`, which is tried again while somebody else's lock is in its way.

    Raises:
        ServiceUnavailable: a lock was in its way every time.
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
    return sqlstate_of(error) in (LOCK_NOT_AVAILABLE, DEADLOCK)
