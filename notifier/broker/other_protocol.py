"""Finds out which protocol answers at a broker's port, if it is not the URL's: Redis behind amqp://, RabbitMQ
behind redis://, HTTP or TLS behind either, any of them without TLS behind amqps:// and rediss://.

The clients of these protocols cannot tell: they wait until their time is over, or find the connection closed.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from notifier.broker import topology
from notifier.broker.deadline import open_socket

#: A command for a Redis-protocol server. It is as long as AMQP's header: RabbitMQ waits for eight bytes, and if
#: they are not a header, it answers with its own.
_QUESTION = b"PING\r\n\r\n"

_AMQP, _REDIS = "the protocol of RabbitMQ", "the Redis protocol"
_SCHEMES = {False: "amqp://", True: "redis://"}
#: How an answer begins → the protocol. "-" begins a refusal, for example of a server that wants a password first.
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
    """What the port of the first host speaks, and what to correct. None: it speaks what the URL says, or cannot be
    identified.

    Opens a connection of its own. `timeout_seconds` limits the connecting and the answer separately.
    """
    parts = urlsplit(broker_url.split(";")[0])
    is_redis = topology.is_redis(broker_url)
    is_tls = parts.scheme.lower() in ("amqps", "rediss")
    port = parts.port or (6379 if is_redis else 5671 if is_tls else 5672)
    found = spoken_at((parts.hostname or "localhost", port), timeout_seconds)
    expected = "TLS" if is_tls else _REDIS if is_redis else _AMQP
    if found in (None, expected):
        return None
    return _words_of_no_tls(found, is_redis) if is_tls else _words(found, is_redis)


def no_tls(is_redis: bool) -> str:
    """What to correct if a broker of this kind speaks no TLS."""
    return f"speaks no TLS: give the port on which it does, or write {_SCHEMES[is_redis]} in its URL"


def spoken_at(place: tuple[str, int], timeout_seconds: float) -> str | None:
    """The protocol spoken at this host and port, for people. None: it cannot be identified."""
    try:
        with open_socket(place, timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(_QUESTION)
            answer = connection.recv(64)
    except OSError:
        return None
    return next((kind for opening, kind in _OPENINGS.items() if answer.startswith(opening)), None)


def _words_of_no_tls(found: str, is_redis: bool) -> str:
    """What to correct if TLS was expected. A Redis-protocol server, for example, is silent when it is sent TLS."""
    if found == (_REDIS if is_redis else _AMQP):
        return no_tls(is_redis)
    return f"speaks {found}, not TLS: give the port on which {'Redis' if is_redis else 'RabbitMQ'} speaks TLS"


def _words(found: str, is_redis: bool) -> str:
    scheme, (broker, port) = _SCHEMES[is_redis], ("Redis", 6379) if is_redis else ("RabbitMQ", 5672)
    right = {
        _AMQP: "write amqp://",
        _REDIS: "write redis://",
        "TLS": f"write {scheme.replace('://', 's://')}",
    }.get(found)
    fix = f"give the port of {broker}, usually {port}"
    return f"speaks {found}, and its URL begins with {scheme}: {f'{right}, or ' if right else ''}{fix}"
