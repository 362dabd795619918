"""Counts the segments of an SMS, which are what providers charge for.

Source: 3GPP TS 23.038 section 6.2.1 (the GSM 7 bit default alphabet and its extension table) and TS 23.040 section
9.2.3.24.1 (the header of a concatenated message, which costs 7 septets or 3 UTF-16 units in each segment).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from notifier.domain.gsm7 import GSM_EXTENSION, fits_gsm


@dataclass(frozen=True, slots=True)
class Segments:
    """How many segments one text takes."""

    encoding: Literal["GSM-7", "UCS-2"]
    #: Messages that the network sends and charges for; 0 for the empty text.
    count: int
    #: Septets for GSM-7, UTF-16 code units for UCS-2, without headers and padding.
    units: int


def segments(text: str) -> Segments:
    """Count the segments of one SMS.

    One character outside the GSM alphabet turns the whole text into UCS-2. A single segment holds 160 septets or
    70 units. If there are more, each holds 153 or 67, and an escape pair or a surrogate pair is never split.
    """
    if fits_gsm(text):
        septets = [2 if character in GSM_EXTENSION else 1 for character in text]
        return Segments("GSM-7", _count(septets, alone=160, joined=153), sum(septets))
    units = [2 if ord(character) > 0xFFFF else 1 for character in text]
    return Segments("UCS-2", _count(units, alone=70, joined=67), sum(units))


def outside_gsm(text: str) -> tuple[str, ...]:
    """The characters that force UCS-2, each once, in the order of the text."""
    return tuple(dict.fromkeys(character for character in text if not fits_gsm(character)))


def characters_left(text: str, size: Segments) -> int:
    """How many plain letters fit before the SMS takes one more segment. `size` is the size of this text."""
    left = 0
    while segments(text + "a" * (left + 1)).count <= size.count:
        left += 1
    return left


def _count(widths: Iterable[int], *, alone: int, joined: int) -> int:
    total = full = used = 0
    for width in widths:
        total += width
        if used + width > joined:
            full, used = full + 1, 0
        used += width
    if total <= alone:
        return 1 if total else 0
    return full + 1
