"""Tells whether this process can do its work (database, tables and broker separately), and whether it is ending.

Monitoring needs no key and asks often, so answers are cached for a moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from notifier.broker import topology
from notifier.broker.bounded_connection import bounded_connection
from notifier.broker.deadline import Deadline
from notifier.domain.errors import DatabaseChanged, ServiceUnavailable

#: Time limit for the broker's answer. Seconds.
BROKER_SECONDS = 2.0
#: How long `/readyz` says 503 between SIGTERM and the closing of the socket: enough for a proxy that asks every
#: two seconds and gives up after three such answers. Seconds.
DRAIN_SECONDS = 8.0
#: If nobody has asked for longer than this, nobody needs to be told. Seconds.
ASKED_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ready:
    """Each part: "ok", or what is wrong with it."""

    database: str
    tables: str
    #: "away": requests are still accepted, and sent when the broker is back.
    broker: str
    #: "ending": it accepts requests for a few more seconds only.
    process: str = "ok"

    @property
    def is_ready(self) -> bool:
        """Whether requests are accepted. They are without the broker too, and are sent when it is back."""
        return self.database == self.tables == self.process == "ok"


class Readiness:
    """Asks database and broker. `missing_upgrade` says what the database lacks for this version; None: nothing."""

    def __init__(self, missing_upgrade: Callable[[], str | None], broker_url: str) -> None:
        self._missing_upgrade = missing_upgrade
        self._broker_url = topology.verified(broker_url)

    def state(self) -> Ready:
        try:
            missing = self._missing_upgrade()
        except DatabaseChanged:
            return Ready("not the one it was: run `notifier db after-restore`", "not known", self._broker())
        except ServiceUnavailable:
            return Ready("away", "not known", self._broker())
        return Ready("ok", "ok" if missing is None else "run `notifier db upgrade`", self._broker())

    def _broker(self) -> str:
        deadline = Deadline(BROKER_SECONDS)
        try:
            with bounded_connection(self._broker_url, deadline, timeout_seconds=BROKER_SECONDS) as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_SECONDS)
        except Exception:
            return "away"
        return "ok"


class Drain:
    """The end of a process behind a proxy: for a moment it says that it is not ready, but still accepts
    requests."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`seconds`: how long that lasts, if anybody asks whether the process is ready."""
        self._seconds = seconds
        self._clock = clock
        self._asked_at: float | None = None
        self._ends_at: float | None = None

    def asked(self, state: Ready) -> Ready:
        """Note that somebody asked, and return the state, marked as ending if `begin` was called."""
        self._asked_at = self._clock()
        return state if self._ends_at is None else replace(state, process="ending")

    def begin(self) -> None:
        """The process is about to end. Further calls change nothing."""
        if self._ends_at is None:
            now = self._clock()
            is_asked = self._asked_at is not None and now - self._asked_at < ASKED_SECONDS
            self._ends_at = now + (self._seconds if is_asked else 0)

    @property
    def has_begun(self) -> bool:
        return self._ends_at is not None

    @property
    def is_over(self) -> bool:
        return self._ends_at is not None and self._clock() >= self._ends_at


class CachedAnswer(Generic[T]):
    """Calls `ask` at most once in `seconds`. Thread-safe. A failure is not cached."""

    def __init__(self, ask: Callable[[], T], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._lock = threading.Lock()
        self._kept: tuple[float, T] | None = None

    def get(self) -> T:
        with self._lock:
            if self._kept is None or time.monotonic() > self._kept[0] + self._seconds:
                answer = self._ask()
                self._kept = (time.monotonic(), answer)
            return self._kept[1]
