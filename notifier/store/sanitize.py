"""Makes values from outside storable."""

from __future__ import annotations

from typing import Any


def storable(value: Any, depth: int = 0) -> Any:
    """The value as Postgres can store it in jsonb or text: no NUL, no lone surrogates, no NaN, not too deep.

    For unchecked values, such as headers of broken messages and texts of providers.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # Python writes at most 4 300 digits, and nobody reads that many.
        return value if abs(value) < 10**30 else "a number out of range"
    if depth < 8 and isinstance(value, dict):
        return {storable(str(key)): storable(item, depth + 1) for key, item in value.items()}
    if depth < 8 and isinstance(value, list | tuple):
        return [storable(item, depth + 1) for item in value]
    return storable(_text(value)[:1000])


def _text(value: Any) -> str:
    try:
        return str(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deep"


def bytea(value: bytes | None) -> str | None:
    """Bytes as a JSON value for a column of type bytea."""
    return None if value is None else rf"\x{value.hex()}"
