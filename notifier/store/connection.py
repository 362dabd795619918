"""Database connections on which our side sets a deadline for every answer.

The server's `statement_timeout` does not help while the server itself stands still (a stopped process, a full
disk, a hypervisor that paused it). Its kernel still acknowledges what we send, so TCP timeouts and keepalives do
not end the connection either. A connection that is given up is closed. Its last statement may or may not be done,
as after a broken connection.

The server decides how long a statement may take; a new connection shows within seconds whether it still can.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import OperationalError
from psycopg.errors import ConnectionTimeout

#: Deadline of a statement. The server's own limit of 30 s comes first, and its error says more. Seconds.
ANSWER_SECONDS = 32.0
#: Deadline of what a server does at once: accept a connection, say that it is there. Seconds.
CONTACT_SECONDS = 5


class ServerSilent(OperationalError):
    """The server did not answer in time. The connection is closed."""


class DeadlineConnection(psycopg.Connection[Any]):
    #: Maximum wait for an answer. None: as long as the server is there.
    answer_seconds: float | None = ANSWER_SECONDS
    #: Whether the server is there. Asked after every `CONTACT_SECONDS` that a statement takes.
    is_there: Callable[[], bool] = staticmethod(lambda: True)

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server. psycopg calls this for every wait on an open connection."""
        limit = self.answer_seconds if timeout is None else timeout
        begun = time.monotonic()
        while True:
            rest = float("inf") if limit is None else limit - (time.monotonic() - begun)
            try:
                return super().wait(gen, interval, max(0.0, min(CONTACT_SECONDS, rest)))
            except psycopg.errors._WaitTimeout:
                if rest > CONTACT_SECONDS and self.is_there():
                    continue
                # Not cancelled, because cancelling needs a new connection, and the server is silent.
                self.pgconn.finish()
                waited = time.monotonic() - begun
                raise ServerSilent(f"the server did not answer within {waited:.0f} s") from None

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        before, self.answer_seconds = self.answer_seconds, seconds
        try:
            yield
        finally:
            self.answer_seconds = before


class Contact:
    """Whether the server answers at all. While it does not, one thread at a time tries, and the other threads fail
    at once instead of waiting. Thread-safe."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._is_silent = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Wrap the first contact with a server. Raises `ServerSilent` if it is silent and another thread tries."""
        has_turn = self._turn.acquire(blocking=False)
        try:
            if self._is_silent and not has_turn:
                raise ServerSilent("the server does not answer")
            yield
            self._is_silent = False
        except (ServerSilent, ConnectionTimeout):
            self._is_silent = True
            raise
        finally:
            if has_turn:
                self._turn.release()
