"""How long the API waits for its clients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """How long a client is waited for. Seconds."""

    #: From the connection, or from the first byte of the next request, to the end of its headers.
    head: float = 15.0
    #: After an answer, for the next request to begin.
    keep_alive: float = 10.0
    #: For the rest of a body that is not wanted any more: closed at once, the client would not see the answer.
    rest: float = 3.0
    #: For the client to take some of its answer.
    answer: float = 30.0
    #: For a body, and for each so many bytes of it.
    body: float = 20.0
    #: … a second more. Slower than any line that carries mail, faster than one byte now and then.
    body_bytes: int = 16 * 1024
    #: Within a body or an answer a client keeps its place for so long, whoever else wants to come.
    place: float = 3.0
    #: For whoever is under way at SIGTERM.
    stop: float = 5.0
    #: How often a connection is looked at.
    look: float = 0.5
