"""Which protocol answers at a broker's port, if it is another than the URL's: Redis behind amqp://, RabbitMQ
behind redis://, HTTP or TLS behind either.

The clients of these protocols cannot tell: they wait until their time is over, or find the connection closed.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from notifier.broker import topology

#: A command for a Redis-protocol server. It is as long as AMQP's header, because RabbitMQ waits for eight bytes,
#: and answers those that are no header with its own.
_QUESTION = b"PING\r\n\r\n"

_AMQP, _REDIS = "the protocol of RabbitMQ", "the Redis protocol"
#: How an answer begins → what it is. "-" begins a refusal, as of a server that wants a password first.
_OPENINGS = {
    b"AMQP": _AMQP,
    b"+PONG": _REDIS,
    b"-": _REDIS,
    b"HTTP/": "HTTP",
    b"\x15\x03": "TLS",
    b"220": "SMTP",
    b"SSH-": "SSH",
}


def other_protocol(broker_url: str, timeout_seconds: float) -> str | None:
    """What the port of the first host speaks, and what to correct. None: what the URL says, or it cannot be told.

    Opens a connection of its own. `timeout_seconds` limits the connecting and the answer, each.
    """
    parts = urlsplit(broker_url.split(";")[0])
    if parts.scheme.lower() in ("amqps", "rediss"):
        return None  # Its own handshake says so.
    is_redis = topology.is_redis(broker_url)
    place = (parts.hostname or "localhost", parts.port or (6379 if is_redis else 5672))
    found = spoken_at(place, timeout_seconds)
    return None if found in (None, _REDIS if is_redis else _AMQP) else _words(found, is_redis)


def spoken_at(place: tuple[str, int], timeout_seconds: float) -> str | None:
    """The protocol of what listens at this host and port, for people; None: it cannot be told."""
    try:
        with socket.create_connection(place, timeout=timeout_seconds) as connection:
            connection.sendall(_QUESTION)
            answer = connection.recv(64)
    except OSError:
        return None
    return next((kind for opening, kind in _OPENINGS.items() if answer.startswith(opening)), None)


def _words(found: str, is_redis: bool) -> str:
    scheme, broker, port = ("redis://", "Redis", 6379) if is_redis else ("amqp://", "RabbitMQ", 5672)
    right = {
        _AMQP: "write amqp://",
        _REDIS: "write redis://",
        "TLS": f"write {scheme.replace('://', 's://')}",
    }.get(found)
    fix = f"give the port of {broker}, as a rule {port}"
    return f"speaks {found}, and its URL begins with {scheme}: {f'{right}, or ' if right else ''}{fix}"
