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
    # Some keyboards write digits, `+` and `@` of another width.
    plain = unicodedata.normalize("NFKC", words)
    if "@" in plain:
        return Found(filter=Filter(recipient_hashes=audit.recipient_hashes(words if "@" in words else plain)))
    if _NUMBER.fullmatch(plain):
        return Found(filter=Filter(recipient_hashes=audit.recipient_hashes(f"+{_digits_of(plain)}")))
    notification = _with_id(audit, holder, words)
    if notification is not None:
        return Found(notification=notification)
    if _DIGITS.fullmatch(plain) and len(_digits_of(plain)) >= _MIN_DIGITS:
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


def _digits_of(words: str) -> str:
    return re.sub(r"[^0-9]", "", words)
