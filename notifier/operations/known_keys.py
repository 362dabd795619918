"""A short-lived cache of valid keys, so that a producer's next request need not ask the database again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

#: A revoked or expired key can be used this much longer, except in the process that revokes it. Seconds.
KNOWN_SECONDS = 1.0
#: If there are more, the oldest is dropped.
MAX_KEYS = 1000

_Holder = TypeVar("_Holder")


class _Reading(NamedTuple):
    """The state of the cache before the database was asked."""

    began_at: float
    clearing: int


class KnownKeys(Generic[_Holder]):
    """Hash of a token → its holder. Thread-safe.

    Only valid keys are kept: wrong tokens, however many, take no place and push out nobody. It holds hashes, so it
    keeps no secret in memory.
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
        #: Each with the time at which it is dropped.
        self._holders: dict[bytes, tuple[_Holder, float]] = {}
        self._clearings = 0

    def __len__(self) -> int:
        return len(self._holders)

    def get(self, token_hash: bytes) -> _Holder | None:
        """The holder; None: not in the cache, or no longer."""
        found = self._holders.get(token_hash)
        return found[0] if found is not None and self._clock() < found[1] else None

    def begin(self) -> _Reading:
        """Call this before asking the database."""
        return _Reading(self._clock(), self._clearings)

    def put(self, token_hash: bytes, holder: _Holder, reading: _Reading) -> None:
        """Keep the database's answer, unless `clear` was called after `begin`: the answer may be from before a key
        ended."""
        with self._lock:
            if reading.clearing != self._clearings:
                return
            self._holders.pop(token_hash, None)
            self._holders[token_hash] = holder, reading.began_at + self._seconds
            now = self._clock()
            # They were added in about the order in which they expire.
            while self._holders:
                oldest, (_, until) = next(iter(self._holders.items()))
                if until > now and len(self._holders) <= self._most:
                    break
                del self._holders[oldest]

    def clear(self) -> None:
        """Drop all keys, because a key has ended."""
        with self._lock:
            self._clearings += 1
            self._holders.clear()
