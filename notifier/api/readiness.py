"""Whether this process can do its work: database, tables and broker, each by itself.

Monitoring needs no key and asks often, so answers are cached for a moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from kombu import Connection

from notifier.broker import topology
from notifier.domain.errors import DatabaseChanged, ServiceUnavailable

#: Deadline of the broker's answer. Seconds.
BROKER_SECONDS = 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ready:
    """Each part: "ok", or what is wrong with it."""

    database: str
    tables: str
    #: "away": requests are accepted all the same, and sent when it is back.
    broker: str

    @property
    def is_ready(self) -> bool:
        """Whether requests are accepted. Without the broker they are: they are sent when it is back."""
        return self.database == self.tables == "ok"


class Readiness:
    """`missing_upgrade` says what the database lacks for this version; None: nothing."""

    def __init__(self, missing_upgrade: Callable[[], str | None], broker_url: str) -> None:
        self._missing_upgrade = missing_upgrade
        self._broker_url = broker_url

    def state(self) -> Ready:
        try:
            missing = self._missing_upgrade()
        except DatabaseChanged:
            return Ready("not the one it was: run `notifier db after-restore`", "not known", self._broker())
        except ServiceUnavailable:
            return Ready("away", "not known", self._broker())
        return Ready("ok", "ok" if missing is None else "run `notifier db upgrade`", self._broker())

    def _broker(self) -> str:
        options = topology.transport_options(self._broker_url, timeout_seconds=BROKER_SECONDS)
        try:
            with Connection(
                self._broker_url, connect_timeout=BROKER_SECONDS, transport_options=options
            ) as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=BROKER_SECONDS)
        except Exception:
            return "away"
        return "ok"


class CachedAnswer(Generic[T]):
    """Calls `ask` at most once in `seconds`. Thread-safe; a failure is not cached."""

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
