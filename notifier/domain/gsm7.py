"""The GSM 7 bit default alphabet: the characters that an SMS can hold without taking twice the room.

Source: 3GPP TS 23.038 section 6.2.1, the alphabet and its extension table.
"""

from __future__ import annotations

#: One septet each. Note: it has capital Ç but not small ç, and é but not ê.
GSM_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
#: Two septets each: an escape and a character.
GSM_EXTENSION = frozenset("\f^{}\\[~]|€")
_GSM = GSM_BASIC | GSM_EXTENSION


def fits_gsm(text: str) -> bool:
    """Whether every character is in the alphabet. A single other character turns the whole SMS into UCS-2."""
    return _GSM.issuperset(text)
