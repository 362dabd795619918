"""Finds values that JSON allows but the record cannot hold: NUL characters, half characters, too large numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from notifier.domain.errors import MAX_FIELD, Fault
from notifier.domain.message import MAX_NUMBER, Message

#: NUL, and half a character, which no JSON text can bring but a Python producer can.
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")


def storage_faults(message: Message) -> Iterator[Fault]:
    """Faults for such values, found one by one, because nobody reads a million of them."""
    for field in ("to", "idempotency_key", "reference", "callback_url", "context", "metadata"):
        value = getattr(message, field)
        if not _is_storable(value):
            yield from _walk(value, field)


def _is_storable(value: Any) -> bool:
    """Whether `_walk` finds nothing. It builds no paths, so it takes a fraction of the time."""
    if isinstance(value, str):
        return not _NOT_STORABLE.search(value)
    if isinstance(value, dict):
        return all(not _NOT_STORABLE.search(key) and _is_storable(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_storable, value))
    return not isinstance(value, int | float) or abs(value) < MAX_NUMBER


def _walk(value: Any, path: str) -> Iterator[Fault]:
    if isinstance(value, str):
        yield from _check_text(value, path)
    elif isinstance(value, int | float) and not abs(value) < MAX_NUMBER:
        fix = "Send a smaller one; or text, if the template takes text there"
        yield Fault(path, "bad_number", "a number out of range", fix)
    elif isinstance(value, dict):
        for key, item in value.items():
            found = _check_text(key, path, "a name in it ")
            yield from found or _walk(item, f"{path}.{key}"[:MAX_FIELD])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}.{index}"[:MAX_FIELD])


def _check_text(text: str, path: str, what: str = "") -> list[Fault]:
    if "\0" in text:
        return [Fault(path, "nul_character", f"{what}contains a NUL character", "Remove it")]
    if _NOT_STORABLE.search(text):
        return [Fault(path, "bad_utf8", f"{what}holds half a character", "Send whole Unicode text")]
    return []
