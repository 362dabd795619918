"""What the database said of valid keys a moment ago, so that a producer's next request need not ask again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

#: A key that is revoked or expires may be used this much longer, except in the process that ends it. Seconds.
KNOWN_SECONDS = 1.0
#: Beyond that the oldest is forgotten.
MAX_KEYS = 1000

_Holder = TypeVar("_Holder")


class _Reading(NamedTuple):
    """Before the database was asked."""

    began_at: float
    clearing: int


class KnownKeys(Generic[_Holder]):
    """Hash of a token → its holder. Thread-safe.

    Only what is valid gets in: wrong tokens, however many, take no place and push out nobody. It holds hashes, so
    no secret stays in memory with it.
    """

    def __init__(
        self,
        seconds: float = KNOWN_SECONDS,
        most: int = MAX_KEYS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        #: With the time at which each is forgotten.
        self._holders: dict[bytes, tuple[_Holder, float]] = {}
        self._clearings = 0

    def __len__(self) -> int:
        return len(self._holders)

    def get(self, token_hash: bytes) -> _Holder | None:
        """None: not known, or not any more."""
        found = self._holders.get(token_hash)
        return found[0] if found is not None and self._clock() < found[1] else None

    def begin(self) -> _Reading:
        """To be called before the database is asked."""
        return _Reading(self._clock(), self._clearings)

    def put(self, token_hash: bytes, holder: _Holder, reading: _Reading) -> None:
        """Keep what the database said, unless `clear` came meanwhile: it may have been said before a key ended."""
        with self._lock:
            if reading.clearing != self._clearings:
                return
            self._holders.pop(token_hash, None)
            self._holders[token_hash] = holder, reading.began_at + self._seconds
            now = self._clock()
            # They were put in about the order in which they are forgotten.
            while self._holders:
                oldest, (_, until) = next(iter(self._holders.items()))
                if until > now and len(self._holders) <= self._most:
                    break
                del self._holders[oldest]

    def clear(self) -> None:
        """Forget all of them: a key has ended."""
        with self._lock:
            self._clearings += 1
            self._holders.clear()
