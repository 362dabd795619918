"""kombu's transport for RabbitMQ, with two changes.

A body that is too large is cut while it is read, if its reader wants that: see `Cut`.

The properties of a message stay bytes until they are needed. py-amqp decodes them while it reads frames. Then a
`timestamp` header in milliseconds, a `content_type` that is not UTF-8 or a table nested too deep raises in the
middle of the connection, where nothing knows which message it was. The message comes back, and the next reader
ends as well. Here the frame reader sees a message without properties, and `read_properties` decodes them where
errors are expected.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from struct import unpack_from
from typing import Any

import amqp
from amqp import method_framing, serialization, spec
from kombu.transport import pyamqp

from notifier.broker.server_certificate import ChecksName

#: Maximum depth of nested tables and lists. No real metadata is deeper.
MAX_DEPTH = 32

#: Header of a rejected message that holds all of its unreadable properties, in base64.
RAW_PROPERTIES = "amqp_properties"

#: Attributes of py-amqp's message that hold the encoded properties and the size of the body.
_RAW, _SIZE = "raw_properties", "whole_size"
_NONE = b"\0\0"  # flags of a message without properties
#: Property → (its flag, its type), in the order of the wire.
_PLACES = {name: (0x8000 >> n, kind) for n, (name, kind) in enumerate(amqp.Message.PROPERTIES)}


class UnreadableProperties(ValueError):
    """The properties are not valid AMQP. The text never repeats them, because they may be personal."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        #: Name of the property: "content_type", "headers".
        self.field = field
        self.problem = problem


def raw_properties(message: Any) -> bytes:
    """The encoded properties of a message: the flags, followed by the properties that are set."""
    found: bytes = message.__dict__.get(_RAW, _NONE)
    return found


def body_size(message: Any) -> int:
    """The size of the body in bytes. It may be larger than the part that was kept."""
    found: int = message.__dict__.get(_SIZE, 0)
    return found


def read_properties(message: Any) -> dict[str, Any]:
    """The properties of a message by name.

    Raises:
        UnreadableProperties: names the first property that cannot be read.
    """
    raw = raw_properties(message)
    try:
        properties: dict[str, Any] = serialization.decode_properties_basic(raw, 0)[0]
        for value in properties.values():
            if isinstance(value, str):
                value.encode()  # py-amqp lets lone surrogates through
    except Exception as error:
        # Anything can happen here: struct errors, Unicode, dates out of range, recursion, memory.
        raise UnreadableProperties(*_first_unreadable(raw)) from error
    headers = properties.get("application_headers")
    if headers and _is_odd(headers):
        problem = f"is nested deeper than {MAX_DEPTH}, or has a name that is not UTF-8"
        raise UnreadableProperties("headers", problem)
    return properties


def headers_apart(raw: bytes) -> dict[str, Any]:
    """The headers that can be read one by one, for properties that cannot be read as a whole."""
    found = {}
    for name, value in _fields(_parts(raw).get("application_headers", _long(b""))):
        try:
            key, read = name.decode(), _value_of(value)
        except Exception:  # noqa: S112 - of this one nothing can be said
            continue
        if not _is_odd({key: read}):
            found[key] = read
    return found


def to_publish_again(raw: bytes, is_brokers: Callable[[str], bool]) -> bytes:
    """The same properties, byte for byte, without the headers that the broker added and without `user_id`, because
    RabbitMQ accepts only the `user_id` of the connection's own user."""
    parts = _parts(raw)
    parts.pop("user_id", None)
    if "application_headers" in parts:
        kept = [
            bytes([len(name)]) + name + value
            for name, value in _fields(parts["application_headers"])
            if not is_brokers(name.decode("utf-8", "replace"))
        ]
        parts["application_headers"] = _long(b"".join(kept))
    return _joined(parts)


def with_user(raw: bytes, user: str, headers: Mapping[str, str]) -> bytes:
    """The same properties with this `user_id`, and with these headers added at the end."""
    parts = _parts(raw)
    parts["user_id"] = _short(user)
    table = parts.get("application_headers", _long(b""))[4:]
    added = b"".join(_short(name) + b"S" + _long(value.encode()) for name, value in headers.items())
    parts["application_headers"] = _long(table + added)
    return _joined(parts)


def _joined(parts: Mapping[str, bytes]) -> bytes:
    flags = sum(_PLACES[name][0] for name in parts)
    return flags.to_bytes(2, "big") + b"".join(parts[name] for name in _PLACES if name in parts)


class RawMessage(amqp.Message):  # type: ignore[misc]  # amqp has no types
    """A message to publish whose properties are already encoded."""

    def __init__(self, body: bytes, raw: bytes) -> None:
        super().__init__(body)
        self._raw = raw

    def _serialize_properties(self) -> bytes:
        return self._raw


@dataclass(frozen=True, slots=True)
class Cut:
    """Cuts bodies of more than `above` bytes to their first `kept` bytes while they are read: RabbitMQ accepts
    bodies of 128 MB, and any number of them."""

    above: int
    kept: int


class _Body:
    """A body that is being read and cut."""

    def __init__(self, size: int, kept: int) -> None:
        self.missing = size
        self.beginning = bytearray()
        self._kept = kept

    def add(self, piece: Any) -> None:
        self.missing -= len(piece)
        self.beginning += piece[: self._kept - len(self.beginning)]


def frame_handler(
    connection: Any, callback: Callable[..., Any], *, cut: Cut | None = None
) -> Callable[[Any], bool]:
    """py-amqp's frame reader, changed so that it never sees properties that others wrote."""
    headers: dict[int, tuple[bytes, int]] = {}
    bodies: dict[int, _Body] = {}

    def give(channel: int, method: tuple[int, int], payload: bytes, content: Any) -> None:
        if content is not None:
            raw, size = headers.pop(channel)
            setattr(content, _RAW, raw)
            setattr(content, _SIZE, size)
            payload = _legible(method, payload)
        callback(channel, method, payload, content)

    original = method_framing.frame_handler(connection, give)

    def on_frame(frame: tuple[int, int, Any]) -> bool:
        kind, channel, buffer = frame
        if kind == 2:  # content header: class, weight, size of the body, properties
            size = int.from_bytes(buffer[4:12], "big")
            headers[channel] = bytes(buffer[12:]), size
            start = bytes(buffer[:12])
            if cut is not None and size > cut.above:
                bodies[channel] = _Body(size, cut.kept)
                start = start[:4] + cut.kept.to_bytes(8, "big")
            frame = kind, channel, start + _NONE
        elif kind == 3 and channel in bodies:
            bodies[channel].add(buffer)
            if bodies[channel].missing > 0:
                connection.bytes_recv += 1  # it counts frames in truth: a sign of life
                return False
            frame = kind, channel, bytes(bodies.pop(channel).beginning)
        done: bool = original(frame)
        return done

    return on_frame


class AmqpMessage(pyamqp.Message):  # type: ignore[misc]  # kombu's types are skipped
    """What kombu gives to a consumer. An unreadable message holds its error, so the consumer's `on_decode_error`
    gets it. Nothing is decompressed: a few bytes would become gigabytes, and none of our programs compress."""

    def __init__(self, msg: Any, channel: Any = None, **options: Any) -> None:
        try:
            msg.properties = read_properties(msg)
            refuse_compression(msg.properties.get("application_headers"))
        except ValueError:
            msg.properties = {}
            self.errors = [sys.exc_info()]
        super().__init__(msg, channel=channel, **options)


class AmqpChannel(pyamqp.Channel):  # type: ignore[misc]
    Message = AmqpMessage


class AmqpConnection(pyamqp.Connection):  # type: ignore[misc]
    Channel = AmqpChannel
    #: Which bodies are cut. None: none.
    cut: Cut | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"frame_handler": partial(frame_handler, cut=self.cut)})


class AmqpTransport(pyamqp.Transport):  # type: ignore[misc]
    Connection = AmqpConnection


class AmqpSslTransport(ChecksName, pyamqp.SSLTransport):  # type: ignore[misc]
    Connection = AmqpConnection


def refuse_compression(headers: Any) -> None:
    """Raise `UnreadableProperties` if the headers ask for decompression."""
    if isinstance(headers, Mapping) and headers.get("compression"):
        raise UnreadableProperties("headers", "asks for decompression")


def _legible(method: tuple[int, int], payload: bytes) -> bytes:
    """The payload with legible exchange and routing key. They come from the publisher too, and with the header CC
    they may be any bytes. What is not UTF-8 becomes question marks, of the same length."""
    if method == spec.Basic.Deliver:  # consumer tag, delivery tag, redelivered
        start = 5 + payload[4] + 9
    elif method == spec.Basic.GetOk:  # delivery tag, redelivered
        start = 4 + 9
    else:  # returned: code, text
        start = 4 + 3 + payload[6]
    if payload[start:].isascii():
        return payload
    legible = bytearray(payload)
    for _ in ("exchange", "routing key"):
        end = start + 1 + legible[start]
        try:
            legible[start + 1 : end].decode()
        except UnicodeDecodeError:
            legible[start + 1 : end] = b"?" * legible[start]
        start = end
    return bytes(legible)


def _is_odd(headers: Mapping[Any, Any]) -> bool:
    """Whether a name is bytes, or the nesting is too deep. Level by level, because recursion could fail here."""
    level: list[Any] = [headers]
    for _ in range(MAX_DEPTH):
        if any(isinstance(name, bytes) for found in level if isinstance(found, dict) for name in found):
            return True
        level = [
            value
            for found in level
            for value in (found.values() if isinstance(found, dict) else found)
            if isinstance(value, dict | list)
        ]
        if not level:
            return False
    return True


def _first_unreadable(raw: bytes) -> tuple[str, str]:
    """The name of the first unreadable property, and what is wrong with it."""
    try:
        parts = _parts(raw)
    except Exception:
        return "properties", "are not those of AMQP 0-9-1"
    for name, part in parts.items():
        kind = _PLACES[name][1]
        unreadable = _first_unreadable_header(part) if kind == "F" else None
        if unreadable is not None:
            return unreadable
        if kind == "s" and not _is_utf8(part[1:]):
            return name, "is not UTF-8"
    return "properties", "are not those of AMQP 0-9-1"


def _first_unreadable_header(table: bytes) -> tuple[str, str] | None:
    for name, value in _fields(table):
        where = f"headers.{name.decode()}" if _NAME.fullmatch(name) else "headers"
        if not _is_utf8(name):
            return where, "has a name that is not UTF-8"
        try:
            _value_of(value)
        except RecursionError:
            return where, "is nested too deep"
        except Exception:
            problem = "is a time out of range: give seconds since 1970" if value[:1] == b"T" else "is not a value"
            return where, problem
    return None


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _value_of(field: bytes) -> Any:
    (values,), _ = serialization.loads("A", _long(field), 0)
    return values[0]


def _short(value: str) -> bytes:
    encoded = value.encode()
    return bytes([len(encoded)]) + encoded


def _long(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


#: A header name that an error may repeat.
_NAME = re.compile(rb"[A-Za-z0-9_.-]{1,64}")

#: Type of a value in a table → its size in bytes. Other types begin with their length in four bytes.
_SIZES = {
    **dict.fromkeys(b"bBt", 1), **dict.fromkeys(b"sUu", 2), **dict.fromkeys(b"iIf", 4), ord("D"): 5,
    **dict.fromkeys(b"lLdT", 8), ord("V"): 0,
}  # fmt: skip


def _parts(raw: bytes) -> dict[str, bytes]:
    """Each property that is set, encoded, in order; with its length if the type has one."""
    (flags,), offset = unpack_from(">H", raw), 2
    found = {}
    for name, (flag, kind) in _PLACES.items():
        if flags & flag:
            size = {"o": 1, "L": 8}.get(kind) or (1 + raw[offset] if kind == "s" else 4 + _length(raw, offset))
            found[name] = raw[offset : offset + size]
            offset += size
    return found


def _fields(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each name and value of a table, encoded. A value of an unknown type takes up all that follows."""
    offset = 4
    while offset < len(table):
        start = offset + 1 + table[offset]
        kind = table[start] if start < len(table) else 0
        if kind in _SIZES:
            end = start + 1 + _SIZES[kind]
        elif kind in b"SxFA":
            end = start + 5 + _length(table, start + 1)
        else:
            end = len(table)
        yield table[offset + 1 : start], table[start:end]
        offset = end


def _length(buffer: bytes, offset: int) -> int:
    return int.from_bytes(buffer[offset : offset + 4], "big")
