"""The notifications that an operator selects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from notifier.security.recipient_hash import HashKey
from notifier.store.filters import Filter, hashes_of


@dataclass(frozen=True, slots=True)
class Selection:
    """Notifications with these ids, or all that the filter finds. Exactly one of the two is given."""

    ids: tuple[UUID, ...] = ()
    filter: Filter | None = None

    def as_dict(self, hash_key: HashKey) -> dict[str, Any]:
        """The selection for the operator record, which is kept for ever, so a recipient is given as a hash."""
        if self.filter is None:
            return {"ids": [str(value) for value in self.ids]}
        found = {name: value for name, value in asdict(self.filter).items() if value is not None}
        hashes = found.pop("recipient_hashes", ())
        if found.pop("recipient", None) is not None:
            hashes = hashes_of(self.filter, hash_key)
        if hashes:
            found["address_hash"] = [value.hex() for value in hashes]
        return {"filter": found}

    @classmethod
    def of_record(cls, selection: Mapping[str, Any]) -> Selection:
        """The selection from the JSON that `as_dict` put into an operator record."""
        if "filter" not in selection:
            return cls(tuple(UUID(value) for value in selection["ids"]))
        found: dict[str, Any] = dict(selection["filter"])
        hashes = found.pop("address_hash", None)
        found |= {name: tuple(found[name]) for name in ("channels", "templates") if name in found}
        found |= {name: datetime.fromisoformat(found[name]) for name in ("since", "until") if name in found}
        recipient_hashes = hashes and tuple(bytes.fromhex(value) for value in hashes)
        return cls(filter=Filter(**found, recipient_hashes=recipient_hashes))
