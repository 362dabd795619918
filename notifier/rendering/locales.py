"""Chooses the locale for a reader: which folder serves them, and how numbers and dates are written. Pure
functions.

A tag is BCP 47 ("fr-CA", "zh-Hans"). If a tag does not name the script ("zh-TW" is Traditional Chinese), it comes
from CLDR's likely subtags, through Babel.
"""

from __future__ import annotations

import re
from functools import lru_cache

from babel import Locale, UnknownLocaleError
from babel.core import get_global

_TAG = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")


def is_tag(text: str) -> bool:
    """Whether it has the shape of a language tag ("fr", "fr-CA", "zh-Hans-CN")."""
    return _TAG.fullmatch(text) is not None


def canonical(tag: str) -> str:
    """The tag in its usual spelling: "FR_ca" → "fr-CA", "zh-hans" → "zh-Hans"."""
    language, *rest = tag.replace("_", "-").split("-")
    spelled = {2: str.upper, 4: str.title}
    return "-".join([language.lower(), *(spelled.get(len(part), str.lower)(part) for part in rest)])


@lru_cache(maxsize=1024)
def fallbacks(tag: str) -> tuple[str, ...]:
    """The tags whose texts a reader of `tag` can read, best first.

    "fr-CA" → fr-CA, fr-Latn-CA, fr-Latn, fr. "zh-CN" → zh-CN, zh-Hans-CN, zh-Hans, zh. "zh-TW" ends with zh-Hant,
    because plain zh is Simplified Chinese, another script. A text that is no known tag has no fallbacks.
    """
    if not is_tag(tag):
        return ()
    parts = canonical(tag).split("-")
    language, script = _family(parts)
    region = _region_of(parts)
    chain = [parts[:length] for length in range(len(parts), 1, -1)] or [parts]
    if script:
        chain += [[language, script, region], [language, script]]
    if (language, script) == _family([language]):
        chain += [[language, region], [language]]
    return tuple(dict.fromkeys("-".join(filter(None, found)) for found in chain))


@lru_cache(maxsize=1024)
def formats_for(requested: str | None, written: str) -> Locale:
    """The conventions for numbers and dates in a text whose language is `written`.

    They are the reader's ("fr-CA") if the reader's locale has the same language and script as the text.
    """
    reader = known_locale(requested) if requested else None
    if requested and reader is not None and same_language(requested, written):
        return reader
    return known_locale(written) or Locale("en")


def known_locale(tag: str) -> Locale | None:
    """The CLDR locale for a tag; None if CLDR has none, or the text is not a tag."""
    try:
        return Locale.parse(canonical(tag), sep="-")
    except (ValueError, UnknownLocaleError):
        return None


def same_language(tag: str, other: str) -> bool:
    """Whether readers of one can read the other: "en-GB" and "en" yes, "zh-Hans" and "zh-Hant" no."""
    return _family(canonical(tag).split("-")) == _family(canonical(other).split("-"))


def _family(parts: list[str]) -> tuple[str, str]:
    """The language and its script ("" if CLDR does not know the language)."""
    language, rest = parts[0], parts[1:]
    if rest and len(rest[0]) == 4 and rest[0].isalpha():
        return language, rest[0]
    likely = get_global("likely_subtags")
    found = likely.get(f"{language}_{_region_of(parts)}") or likely.get(language) or ""
    return language, next((part for part in found.split("_")[1:] if len(part) == 4), "")


def _region_of(parts: list[str]) -> str:
    return next((part for part in parts[1:3] if len(part) == 2 or (len(part) == 3 and part.isdigit())), "")
