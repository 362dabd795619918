"""The destination of a notification, without the person: a calling code or a domain."""

from __future__ import annotations

import re

from notifier.domain.statuses import Channel

#: ITU-T E.164: calling codes of one digit, and the beginnings of those of two digits. All others have three.
_ONE_DIGIT = ("1", "7")
_TWO_DIGITS = re.compile(r"20|27|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]")


def destination_of(channel: Channel, address: str) -> str:
    """ "country code +44", "domain example.org". In the North American plan the area code stands for a country, so
    it is included: "country code +1 876"."""
    if channel is Channel.EMAIL:
        return f"domain {address.rpartition('@')[2].lower()}"
    digits = address.removeprefix("+")
    if digits.startswith("1"):
        return f"country code +1 {digits[1:4]}".rstrip()
    length = 1 if digits.startswith(_ONE_DIGIT) else 2 if _TWO_DIGITS.match(digits) else 3
    return f"country code +{digits[:length]}"
