"""Joins several messages into one of the broker, `{"batch":[…]}`, within the limits of entries and bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from notifier.domain.message import MAX_BATCH_ENTRIES, MAX_BODY_BYTES

#: What goes around the entries of a batch.
_BATCH = b'{"batch":[%b]}'
#: Maximum size of a message that must also fit into a batch. Bytes.
MAX_ENTRY_BYTES = MAX_BODY_BYTES - len(_BATCH % b"")

_Item = TypeVar("_Item")


def join(bodies: Sequence[bytes]) -> bytes:
    """A single message unchanged, or several in the batch form."""
    return bodies[0] if len(bodies) == 1 else _BATCH % b",".join(bodies)


def portions(items: Iterable[_Item], body_of: Callable[[_Item], bytes]) -> Iterator[list[_Item]]:
    """Lists of items whose joined bodies keep the batch form's limits of entries and bytes."""
    portion: list[_Item] = []
    size = 0
    for item in items:
        length = len(body_of(item)) + 1
        if portion and (len(portion) == MAX_BATCH_ENTRIES or size + length - 1 > MAX_ENTRY_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += length
    if portion:
        yield portion
