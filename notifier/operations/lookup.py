"""What somebody typed into the one search box: an id, an address, a number, a reference, or a provider's id.

Nothing tells a producer's key whether there are others' messages: it is found what its holder may see.
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
from notifier.store.operator_actions import ActionCounts, Operating
from notifier.store.search import Audit
from notifier.store.selection import Selection

#: As people write numbers: `+1 (555) 010-0123`.
_NUMBER = re.compile(r"\+[0-9][0-9 ()./-]*")
#: As they write them at home, or dial them. It may as well be a reference.
_DIGITS = re.compile(r"[(0-9][0-9 ()./-]*")
#: What is shorter is no telephone number.
_MIN_DIGITS = 7
#: With a letter or two it is one still, if it is as long as those with their country; `INV-1234567` is none.
_MIN_DIGITS_AMONG_LETTERS, _MAX_LETTERS = 10, 3
#: Our ids, all of which begin so for the next centuries.
_OUR_ID = re.compile(r"01[0-9a-f]{6}-[0-9a-f-]*", re.IGNORECASE)
#: As links have addresses and numbers.
_SCHEME = re.compile(r"(?:mailto:([^?]*).*|tel:(.*))", re.IGNORECASE)
#: `@` as it is written in links, and against those who collect addresses.
_HIDDEN_AT = re.compile(r"%40|\s*[(\[{]\s*at\s*[)\]}]\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """One notification, or the filter that finds all that is meant, or what has to be asked."""

    notification: UUID | None = None
    filter: Filter | None = None
    #: It may be a number without its country, or a reference. Numbers are kept out of addresses of pages.
    unclear: str = ""


def look_up(audit: Audit, holder: Holder, typed: str) -> Found:
    """Raises:
    WrongSelection: nothing was typed, or it begins several ids.
    InvalidMessage: it looks like a number, and is none.
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
    operating: Operating, holder: Holder, action: Literal["look_up", "export"], wanted: Filter
) -> None:
    """Note in the operator record that somebody looked a person up, or exported messages. A recipient is in it as
    a hash."""
    selection = Selection(filter=wanted).as_dict(operating.hash_key)
    begun = operating.begin(holder.operator, action, selection, None)
    operating.note(begun.id, ActionCounts(), is_finished=True)


def _with_id(audit: Audit, holder: Holder, words: str) -> UUID | None:
    """Ours, or a provider's: one may look like the other."""
    ids = read_id_range(words)
    if ids is not None:
        try:
            return audit.id_between(ids.first, ids.last, holder.visible)
        except NotFound:
            pass
    at_provider = audit.with_provider_id(words, holder.visible)
    return at_provider[0] if len(at_provider) == 1 else None


def _bare(words: str) -> str:
    """Without `mailto:` or `tel:`."""
    link = _SCHEME.fullmatch(words)
    return (link[1] or link[2] or "").strip() if link else words


def _plain(words: str) -> str:
    """With digits, `+` and `@` as in ASCII: some keyboards write them of another width, or of another script."""
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
