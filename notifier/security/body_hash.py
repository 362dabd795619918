"""The hash of a message's content, which tells a repeated message from a different one with the same key.

Hashes are kept as long as their keys, so the hashed form must never change. It is the JSON that `json.dumps`
writes with sorted keys. msgspec writes the same bytes in a tenth of the time, except for floats.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from notifier.domain.message import Message

try:
    import msgspec
except ModuleNotFoundError:
    # A producer has only the client. It hashes single messages that have a key.
    _sorted = None
else:
    _sorted = msgspec.json.Encoder(order="deterministic")


def body_hash(message: Message, content: Mapping[str, Any] | None = None) -> bytes:
    """SHA-256 of the content: the same for the same request, whatever the order of fields and the spelling of
    times.

    If there is an idempotency key the id is left out, because a producer that publishes again makes a new id.
    `content` is the result of `Message.content`, if the caller already has it.
    """
    content = dict(content or message.content())
    if message.idempotency_key is not None:
        content.pop("id", None)
    return hashlib.sha256(canonical(content)).digest()


def canonical(content: dict[str, Any]) -> bytes:
    """JSON in UTF-8 with sorted keys and without spaces, as `json.dumps` writes it.

    Raises:
        ValueError: a text in it is not valid Unicode.
    """
    if _sorted is not None and not _has_floats(content):
        return _sorted.encode(content)
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _has_floats(value: dict[str, Any] | list[Any]) -> bool:
    # Compares the type instead of calling `isinstance`, because this runs for every value of a context.
    for item in value.values() if isinstance(value, dict) else value:
        kind = type(item)
        if kind is float or ((kind is dict or kind is list) and _has_floats(item)):
            return True
    return False
