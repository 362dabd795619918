"""Connections whose every answer has a deadline on our side.

The server's `statement_timeout` is nothing while the server itself stands still (a stopped process, a full disk, a
hypervisor that paused it), and its kernel still acknowledges what we send, so TCP's timeouts and keepalives do not
end it either. A connection that had to be given up so is closed: what it was at may or may not be done, as if it
had broken.

How long a statement may take is the server's to say; a new connection tells within seconds whether it still can.
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

#: A statement's: the server's own limit of 30 s comes first, and says more.
ANSWER_SECONDS = 32.0
#: Of what a server does at once: accept a connection, say that it is there.
CONTACT_SECONDS = 5


class ServerSilent(OperationalError):
    """The server did not answer in time. The connection is closed."""


class DeadlineConnection(psycopg.Connection[Any]):
    #: How long an answer is waited for; None: as long as the server is there.
    answer_seconds: float | None = ANSWER_SECONDS
    #: Whether the server is there: asked every `CONTACT_SECONDS` that a statement takes.
    is_there: Callable[[], bool] = staticmethod(lambda: True)

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Everything that psycopg waits for on an open connection comes by here."""
        limit = self.answer_seconds if timeout is None else timeout
        begun = time.monotonic()
        while True:
            rest = float("inf") if limit is None else limit - (time.monotonic() - begun)
            try:
                return super().wait(gen, interval, max(0.0, min(CONTACT_SECONDS, rest)))
            except psycopg.errors._WaitTimeout:
                if rest > CONTACT_SECONDS and self.is_there():
                    continue
                # Not cancelled: that takes a new connection, to a server that is silent.
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
    """Whether the server answers at all. While it does not, one thread at a time finds out, and the others fail at
    once instead of waiting, too. Thread-safe."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._is_silent = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around a first word to the server. Raises `ServerSilent` if it is silent, and somebody tries already."""
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
