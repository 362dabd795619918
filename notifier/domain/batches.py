"""Batches: merges the fields that entries share into each entry, and finds faults of a batch as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from notifier.domain.errors import MAX_FIELD, Fault, few
from notifier.domain.message import MAX_SHARED_BYTES, Envelope, Message


@dataclass(frozen=True, slots=True)
class OpenedBatch:
    """A batch whose entries can be made out, whatever else is wrong with it."""

    #: The batch without its wrong fields.
    envelope: Envelope
    #: Faults of the batch as a whole; if there are any, none of its entries is accepted.
    faults: tuple[Fault, ...]
    #: Names of the shared fields that these faults are about.
    wrong: frozenset[str]

    def not_blamed(self, faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
        """The faults of an entry, except fields that are missing only because the shared field is wrong."""
        return tuple(one for one in faults if not (one.code == "missing" and one.field in self.wrong))


def batch_faults(envelope: Envelope) -> tuple[Fault, ...]:
    """Faults of the fields that the entries share: reported once, not with each of a thousand entries."""
    large: list[Fault] = []
    shared = len(json.dumps(envelope.defaults)) * len(envelope.batch)
    if shared > MAX_SHARED_BYTES:
        problem = f"comes to {shared} bytes, once for each entry"
        fix = f"Send fewer entries a batch, or shorter defaults: at most {MAX_SHARED_BYTES} bytes for all of them"
        large = [Fault("defaults", "too_large", problem, fix)]
    unknown = (
        Fault(f"defaults.{name}"[:MAX_FIELD], "unknown_field", "is not a field of the contract", _NOT_HERE)
        for name in envelope.defaults
        if name not in Message.model_fields
    )
    return few((*large, *unknown))


_NOT_HERE = "Remove it, or move it into metadata"


def entries_of(envelope: Envelope) -> Iterator[tuple[dict[str, Any] | None, bytes]]:
    """Each entry with the shared fields merged in, and its JSON. None: the entry is not an object."""
    common = {k: v for k, v in (("producer", envelope.producer), ("template", envelope.template)) if v}
    for item in envelope.batch:
        if not isinstance(item, dict):
            yield None, json.dumps(item, ensure_ascii=False).encode("utf-8", "surrogatepass")
            continue
        # Shared fields are kept with the entry, so that it can be published again alone.
        merged = {**common, **envelope.defaults, **item}
        for field in ("context", "metadata"):
            default, own = envelope.defaults.get(field), item.get(field)
            if isinstance(default, dict) and isinstance(own, dict):
                merged[field] = {**default, **own}
        yield merged, json.dumps(merged, ensure_ascii=False).encode("utf-8", "surrogatepass")


def placed(place: int | None, faults: Iterable[Fault]) -> Iterable[Fault]:
    """The faults of an entry, with its position in the batch before each field. `place`: from 0; None: the message
    stands alone."""
    if place is None:
        return faults
    return (replace(fault, field=f"batch.{place}.{fault.field}".rstrip(".")) for fault in faults)
