"""One deadline for everything that a call does on the network.

The libraries limit each read and each write. A peer that sends a byte now and then never reaches such a limit, and
a host with several addresses has a limit for each. Here each step may take only what is left of the call's time.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: A wait may miss its end by this much. Seconds.
_TOLERANCE = 0.02


class Deadline:
    """The end of the call that a connection works for. It is moved for the next call."""

    def __init__(self, seconds: float = 0.0) -> None:
        #: On the clock of `time.monotonic()`.
        self.ends_at = 0.0
        self.begin(seconds)

    def begin(self, seconds: float) -> None:
        """Let the deadline end `seconds` from now."""
        self.ends_at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds that are left; 0 or less if it is over."""
        return self.ends_at - time.monotonic()

    def left(self) -> float:
        """Seconds for a socket, for which 0 means "do not wait". Raises `TimeoutError` if the deadline is over."""
        seconds = self.remaining
        if seconds <= 0:
            raise TimeoutError("the time of the call is over")
        return seconds

    @contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Within this block the deadline ends after `seconds`, or earlier."""
        whole = self.ends_at
        self.ends_at = min(whole, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.ends_at = whole


class BoundedSocket:
    """A connected socket, plain or TLS. A wait ends by its own timeout or the deadline, whichever comes first.

    A deadline that is over does not prevent actions without a wait, such as closing it.
    """

    def __init__(self, inner: socket.socket, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline
        self._timeout = inner.gettimeout()
        #: The timeout set on `inner`. None: not known.
        self._set: float | None = None

    def recv(self, *arguments: Any) -> bytes:
        self._limit()
        return self._inner.recv(*arguments)

    def recv_into(self, *arguments: Any) -> int:
        self._limit()
        return self._inner.recv_into(*arguments)

    def sendall(self, data: Any) -> None:
        # Piece by piece, because over TLS Python limits the time of each piece, not of the whole.
        view = memoryview(data)
        while view:
            self._limit()
            view = view[self._inner.send(view) :]

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        return self._timeout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _limit(self) -> None:
        seconds = self._timeout
        # A timeout of 0 asks whether something is there.
        if seconds != 0:
            left = self._deadline.left()
            seconds = left if seconds is None else min(left, seconds)
        # Each change is a system call, and there are several reads in a millisecond.
        if not self._set or seconds == 0 or abs(seconds - self._set) > _TOLERANCE:
            self._inner.settimeout(seconds)
            self._set = seconds


class InTurn:
    """Ends the try of one host within its part of the time, so that the next host has the rest. Comes before a
    transport of kombu in the order of inheritance."""

    client: Any

    def establish_connection(self) -> Any:
        deadline: Deadline = self.client.transport_options["deadline"]
        with deadline.at_most(self.client.connect_timeout):
            return super().establish_connection()  # type: ignore[misc]  # kombu's


def open_socket(place: tuple[str, int], timeout_seconds: float) -> socket.socket:
    """A connection to a host and port. The limit covers all addresses of the host together. Each address gets an
    equal part of what the earlier ones left."""
    ends_at = time.monotonic() + timeout_seconds
    found = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(found):
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(max(0.01, (ends_at - time.monotonic()) / (len(found) - number)))
            opened.connect(address)
        except OSError as error:
            opened.close()
            failure = error
        else:
            return opened
    raise failure or OSError("the host has no address")
