"""Time limits of the API for its clients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """How long the API waits for a client. Seconds."""

    #: From the connection, or from the first byte of the next request, to the end of the headers.
    head: float = 15.0
    #: From an answer to the beginning of the next request.
    keep_alive: float = 10.0
    #: For the rest of a body that is no longer wanted: if the connection were closed at once, the client would not
    #: see the answer.
    rest: float = 3.0
    #: For the client to read some of its answer.
    answer: float = 30.0
    #: For a body, plus one second …
    body: float = 20.0
    #: … for each this many bytes. Slower than any line that carries mail, but faster than a byte now and then.
    body_bytes: int = 16 * 1024
    #: How long a client in the middle of a body or an answer keeps its place when places run out.
    place: float = 3.0
    #: For clients in the middle of a request at SIGTERM.
    stop: float = 5.0
    #: Time between two checks of each connection.
    look: float = 0.5
