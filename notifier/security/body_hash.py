"""The hash of a message's content, which tells a repetition from another message under the same key.

Hashes are kept for as long as the keys they belong to, so what is hashed must never change: it is the JSON that
`json.dumps` writes with sorted keys. msgspec writes the same bytes in a tenth of the time, but for floats.
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
    # A producer, who has only the client. It hashes what has a key, one at a time.
    _sorted = None
else:
    _sorted = msgspec.json.Encoder(order="deterministic")


def body_hash(message: Message, content: Mapping[str, Any] | None = None) -> bytes:
    """SHA-256 of the content: the same for the same request in any order of fields and spelling of times.

    With an idempotency key the id is left out, because a producer that publishes again makes a new one.
    `content`: what `Message.content` returned, for whoever has it.
    """
    content = dict(content or message.content())
    if message.idempotency_key is not None:
        content.pop("id", None)
    return hashlib.sha256(canonical(content)).digest()


def canonical(content: dict[str, Any]) -> bytes:
    """JSON in UTF-8 with sorted keys and without spaces, as `json.dumps` writes it.

    Raises:
        ValueError: a text in it is not Unicode.
    """
    if _sorted is not None and not _has_floats(content):
        return _sorted.encode(content)
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _has_floats(value: dict[str, Any] | list[Any]) -> bool:
    # By type, not `isinstance`: of the many values of a context each is looked at.
    for item in value.values() if isinstance(value, dict) else value:
        kind = type(item)
        if kind is float or ((kind is dict or kind is list) and _has_floats(item)):
            return True
    return False
