"""What somebody typed into the one search box: an id, an address, a number, a reference, or a provider's id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from notifier.domain.errors import NotFound, WrongSelection
from notifier.domain.id_range import read_id_range
from notifier.store.filters import Filter
from notifier.store.search import Audit

#: As people write numbers: `+1 (555) 010-0123`.
_NUMBER = re.compile(r"\+[0-9][0-9 ().-]{5,24}\Z")


@dataclass(frozen=True, slots=True)
class Found:
    """One notification, or the filter that finds all that is meant."""

    notification: UUID | None = None
    filter: Filter | None = None


def look_up(audit: Audit, typed: str) -> Found:
    """Raises:
    WrongSelection: nothing was typed, or it begins several ids.
    InvalidMessage: it looks like a number, and is none.
    """
    words = typed.strip()
    if not words or "\0" in words:
        raise WrongSelection("type an address, a number, an id, a reference or a provider's id")
    if "@" in words:
        return Found(filter=Filter(recipient_hashes=audit.recipient_hashes(words)))
    if _NUMBER.match(words):
        number = "+" + re.sub(r"[^0-9]", "", words)
        return Found(filter=Filter(recipient_hashes=audit.recipient_hashes(number)))
    ids = read_id_range(words)
    if ids is not None:
        try:
            return Found(notification=audit.id_between(ids.first, ids.last))
        except NotFound:
            pass  # a provider's id, or a reference, may look like one
    at_provider = audit.with_provider_id(words)
    if len(at_provider) == 1:
        return Found(notification=at_provider[0])
    return Found(filter=Filter(reference=words))
