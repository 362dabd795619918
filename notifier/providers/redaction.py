"""Removes personal data from what a provider says, before it goes into `detail`, logs and the record."""

from __future__ import annotations

import re

#: Maximum length of `detail`, in characters.
MAX_DETAIL = 300
#: Maximum characters that are read, so that a hostile server cannot cost us time in a regular expression.
_MAX_READ = 2000

_ADDRESS = re.compile(r"""(?:"[^"]*"|[^\s<>()\[\],;:"@]+)@(?=[\w\[])""")
_NUMBER = re.compile(r"\+?\d(?:[\s().-]?\d){6,}")
#: Control characters, line separators and lone surrogates: PostgreSQL refuses some of them, and logs break on
#: others.
_UNPRINTABLE = re.compile("[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]+")


def mail_detail(text: str, *, recipient: str = "") -> str:
    """`zoe@example.com` → `***@example.com`, in one printable line of at most `MAX_DETAIL` characters. The local
    part of `recipient` is also removed where it stands alone, as in "no such user zoe"."""
    masked = _one_line(text)
    if "@" in masked:
        masked = _ADDRESS.sub("***@", masked)
    local = recipient.rpartition("@")[0]
    # A plain search first: compiling an expression for each recipient takes longer than sending the mail.
    if local and local.lower() in masked.lower():
        masked = re.sub(rf"(?<![\w.-]){re.escape(local)}(?![\w-])", "***", masked, flags=re.IGNORECASE)
    return _capped(masked)


def sms_detail(text: str) -> str:
    """`+15550100123` → `***23`. Numbers of fewer than 7 digits stay, because error codes must remain readable."""
    return _capped(_NUMBER.sub(lambda found: "***" + found[0][-2:], _one_line(text)))


def _one_line(text: str) -> str:
    text = text[:_MAX_READ]
    # Checked first, because most texts are one line already and the expression takes ten times as long.
    if not text.isprintable() or "  " in text:
        text = _UNPRINTABLE.sub(" ", text)
    return text.strip()


def _capped(text: str) -> str:
    return text if len(text) <= MAX_DETAIL else text[: MAX_DETAIL - 1] + "…"
