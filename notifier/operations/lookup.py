"""Finds what somebody typed into the single search box: an id, an address, a number, a reference, or a provider's
id.

A look-up finds only what its holder may see, so a producer's key learns nothing about others' messages.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from notifier.domain.errors import NotFound, WrongSelection
from notifier.domain.id_range import read_id_range
from notifier.operations.api_keys import Holder
from notifier.store.filters import Filter
from notifier.store.operator_actions import ActionCounts, OperatorActions
from notifier.store.search import Audit
from notifier.store.selection import Selection

#: Numbers as people write them: `+1 (555) 010-0123`.
_NUMBER = re.compile(r"\+[0-9][0-9 ()./-]*")
#: Numbers without a country code, or as they are dialled. Such a text may also be a reference.
_DIGITS = re.compile(r"[(0-9][0-9 ()./-]*")
#: Anything shorter is not a telephone number.
_MIN_DIGITS = 7
#: A text with a few letters still counts as a number if it is as long as numbers with a country code;
#: `INV-1234567` does not.
_MIN_DIGITS_AMONG_LETTERS, _MAX_LETTERS = 10, 3
#: Our ids, all of which will begin like this for centuries.
_OUR_ID = re.compile(r"01[0-9a-f]{6}-[0-9a-f-]*", re.IGNORECASE)
#: Addresses and numbers as links write them.
_SCHEME = re.compile(r"(?:mailto:([^?]*).*|tel:(.*))", re.IGNORECASE)
#: `@` as written in links, or to hide from address collectors.
_HIDDEN_AT = re.compile(r"%40|\s*[(\[{]\s*at\s*[)\]}]\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """One notification, or a filter that finds everything that may be meant, or a question to the person."""

    notification: UUID | None = None
    filter: Filter | None = None
    #: It may be a number without a country code, or a reference. Numbers are kept out of pages' URLs.
    unclear: str = ""


def look_up(audit: Audit, holder: Holder, typed: str) -> Found:
    """Find what was typed.

    Raises:
        WrongSelection: nothing was typed, or several ids begin with it.
        InvalidMessage: it looks like a number but is not valid.
    """
    words = typed.strip()
    if not words or "\0" in words:
        raise WrongSelection("type an address, a number, an id or a reference")
    bare = _bare(words)
    plain = _plain(bare)
    if "@" in plain:
        return Found(filter=Filter(recipient_hashes=audit.recipient_hashes(bare if "@" in bare else plain)))
    if _NUMBER.fullmatch(plain):
        return Found(filter=Filter(recipient_hashes=audit.recipient_hashes(f"+{_digits_of(plain)}")))
    notification = _with_id(audit, holder, words)
    if notification is not None:
        return Found(notification=notification)
    if _may_be_number(plain):
        return Found(unclear=words)
    return Found(filter=Filter(reference=words))


def record_read(
    operator_actions: OperatorActions, holder: Holder, action: Literal["look_up", "export"], wanted: Filter
) -> None:
    """Note in the operator record that somebody looked a person up, or exported messages. A recipient is noted as
    a hash."""
    selection = Selection(filter=wanted).as_dict(operator_actions.hash_key)
    begun = operator_actions.begin(holder.operator, action, selection, None)
    operator_actions.note(begun.id, ActionCounts(), is_finished=True)


def _with_id(audit: Audit, holder: Holder, words: str) -> UUID | None:
    """The notification with this id of ours or of a provider: one may look like the other."""
    ids = read_id_range(words)
    if ids is not None:
        try:
            return audit.id_between(ids.first, ids.last, holder.visible)
        except NotFound:
            pass
    at_provider = audit.with_provider_id(words, holder.visible)
    return at_provider[0] if len(at_provider) == 1 else None


def _bare(words: str) -> str:
    """The text without `mailto:` or `tel:`."""
    link = _SCHEME.fullmatch(words)
    return (link[1] or link[2] or "").strip() if link else words


def _plain(words: str) -> str:
    """The text with ASCII digits, `+` and `@`: some keyboards produce full-width characters or other scripts'
    digits."""
    text = unicodedata.normalize("NFKC", words)
    text = "".join(str(unicodedata.decimal(each)) if each.isdecimal() else each for each in text)
    return _HIDDEN_AT.sub("@", text)


def _may_be_number(plain: str) -> bool:
    digits, letters = len(_digits_of(plain)), sum(map(str.isalpha, plain))
    if _DIGITS.fullmatch(plain):
        return digits >= _MIN_DIGITS
    is_long = digits >= _MIN_DIGITS_AMONG_LETTERS and letters <= _MAX_LETTERS
    return is_long and not _OUR_ID.fullmatch(plain)


def _digits_of(words: str) -> str:
    return re.sub(r"[^0-9]", "", words)
