"""Properties of AMQP messages, byte by byte: those that RabbitMQ lets pass, and others."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any

import amqp
from amqp import serialization

_SHORT = (
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "message_id",
    "type",
    "app_id",
    "cluster_id",
)
#: Each property's bit among the flags.
_FLAGS = {name: 0x8000 >> n for n, (name, _) in enumerate(amqp.Message.PROPERTIES)}
_KINDS = dict(amqp.Message.PROPERTIES)

_WORDS = (
    b"",
    b"x",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\0",
    b"x" * 255,
    b"\xc3",
    "é".encode(),
    b"utf-8",
    b"gzip",
    b"zip",
    b"application/json",
    b"application/x-python-serialize",
    b"application/data",
    b"base64",
    b"utf-16",
    b"no-such",
)
_NAMES = (
    b"a",
    b"",
    b"\xff",
    b"task",
    b"id",
    b"compression",
    b"x-death",
    b"x-delivery-count",
    b"x" * 255,
    b"sent_at",
    b"\0",
    b"timelimit",
    b"CC2",
    b"traceparent",
    b"clock",
    b"\xed\xa0\x80",
)


def plain() -> bytes:
    """The properties of an ordinary producer."""
    return wire({"content_type": b"application/json", "delivery_mode": b"\x02"})


def wire(properties: dict[str, bytes]) -> bytes:
    """Properties as they are on the wire: short strings and tables get their length, everything else is left as
    given."""
    flags, parts = 0, []
    for name, kind in amqp.Message.PROPERTIES:
        if name in properties:
            value = properties[name]
            flags |= _FLAGS[name]
            length = {"s": 1, "F": 4}.get(kind, 0)
            parts.append((len(value).to_bytes(length, "big") if length else b"") + value)
    return struct.pack(">H", flags) + b"".join(parts)


def mutated(rng: Random) -> bytes:
    """Properties with something odd in them."""
    properties = {"content_type": b"application/json"}
    for _ in range(rng.randrange(1, 4)):
        kind = rng.randrange(10)
        if kind < 4:
            properties[rng.choice(_SHORT)] = rng.choice(_WORDS)
        elif kind < 8:
            properties["application_headers"] = table(rng)
        elif kind == 8:
            properties["timestamp"] = rng.choice([bytes(8), b"\xff" * 8, struct.pack(">Q", 1_700_000_000_000)])
        else:
            properties[rng.choice(["delivery_mode", "priority"])] = rng.randbytes(1)
    if rng.random() < 0.05:
        # RabbitMQ closes the connection for most of these.
        raw = bytearray(wire(properties))
        raw[rng.randrange(len(raw))] = rng.randrange(256)
        return bytes(raw)
    return wire(properties)


def with_headers(headers: dict[str, Any], rng: Random) -> bytes:
    """Headers with Python values, as kombu writes them; values without a form in AMQP are left out."""
    fields = []
    for name, value in headers.items():
        try:
            written = serialization.dumps("F", [{name: value}])[4:]
        except Exception:  # such as 10**400
            continue
        fields.append(written)
    properties = {
        "content_type": rng.choice([b"application/json"] * 6 + list(_WORDS)),
        "content_encoding": rng.choice([b"utf-8"] * 6 + list(_WORDS)),
        "correlation_id": rng.choice([b"c"] * 6 + list(_WORDS)),
        "application_headers": b"".join(fields) + (_field(rng) if rng.random() < 0.2 else b""),
    }
    return wire(properties)


def table(rng: Random) -> bytes:
    """The fields of a table."""
    return b"".join(_field(rng) for _ in range(rng.randrange(5)))


def _field(rng: Random) -> bytes:
    name = rng.choice(_NAMES)
    return bytes([len(name)]) + name + _value(rng)


def _value(rng: Random, depth: int = 0) -> bytes:
    makers = [
        lambda: b"S" + _long(rng.choice(_WORDS)),
        lambda: b"x" + _long(rng.randbytes(5)),
        lambda: b"V",
        lambda: b"T" + struct.pack(">Q", rng.choice([0, 1_700_000_000, 1_700_000_000_000, 2**63, 2**64 - 1])),
        lambda: b"d" + struct.pack(">d", rng.choice([float("nan"), float("inf"), 1e308, -0.0])),
        lambda: b"f" + struct.pack(">f", float("nan")),
        lambda: b"D" + bytes([rng.choice([0, 255])]) + rng.randbytes(4),
        lambda: b"l" + rng.randbytes(8),
        lambda: b"I" + rng.randbytes(4),
        lambda: b"t" + rng.randbytes(1),
        lambda: b"s" + rng.randbytes(2),
        lambda: b"b" + rng.randbytes(1),
        lambda: b"B" + rng.randbytes(1),
        lambda: b"i" + rng.randbytes(4),
        lambda: b"u" + rng.randbytes(2),
        lambda: b"L" + rng.randbytes(8),
        lambda: b"A" + _long(_nested(rng.choice([1, 40, 300, 2000]))),
    ]
    if depth < 4:
        makers += [
            lambda: b"A" + _long(b"".join(_value(rng, depth + 1) for _ in range(rng.randrange(4)))),
            lambda: b"F" + _long(b"".join(b"\x01k" + _value(rng, depth + 1) for _ in range(rng.randrange(3)))),
        ]
    if rng.random() < 0.01:
        return bytes([rng.randrange(256)]) + rng.randbytes(4)
    make: Callable[[], bytes] = rng.choice(makers)
    return make()


def _long(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _nested(depth: int) -> bytes:
    value = b"V"
    for _ in range(depth):
        value = b"A" + _long(value)
    return value
