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
    #: For a body, and one second more …
    body: float = 20.0
    #: … for each this many bytes. Slower than any line that carries mail, faster than a byte now and then.
    body_bytes: int = 16 * 1024
    #: In the middle of a body or an answer, a client keeps its place this long even when places run out.
    place: float = 3.0
    #: For clients in the middle of a request at SIGTERM.
    stop: float = 5.0
    #: How often each connection is checked.
    look: float = 0.5
