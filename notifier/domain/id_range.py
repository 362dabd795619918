"""Reads the first characters of an id, as people copy them from a narrow terminal or a ticket."""

from __future__ import annotations

from dataclasses import dataclass
from string import hexdigits
from uuid import UUID

#: With fewer characters it may be a word, so it does not count as an id.
MIN_ID_DIGITS = 8
_ID_DIGITS = 32


@dataclass(frozen=True, slots=True)
class IdRange:
    """Ids from the first to the last, both inclusive. Of a complete id the range holds just this one."""

    first: UUID
    last: UUID


def read_id_range(text: str) -> IdRange | None:
    """The ids that begin with this text. None: it is not the beginning of an id."""
    digits = text.strip().replace("-", "").lower()
    if not MIN_ID_DIGITS <= len(digits) <= _ID_DIGITS or set(digits) - set(hexdigits):
        return None
    return IdRange(UUID(digits.ljust(_ID_DIGITS, "0")), UUID(digits.ljust(_ID_DIGITS, "f")))
