"""Selections of rejected messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, false, func

from notifier.store.binds import among
from notifier.store.rows import matching, within
from notifier.store.schema.notifications import RejectedMessage

#: A replay that has held a message for this long counts as gone. Seconds.
CLAIM_SECONDS = 60
#: A replay claimed it and is gone.
IS_INTERRUPTED: ColumnElement[bool] = func.coalesce(
    RejectedMessage.claimed_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, CLAIM_SECONDS), false()
)


@dataclass(frozen=True, slots=True)
class RejectedSelection:
    """Messages with these ids, or all that meet the conditions."""

    ids: tuple[UUID, ...] = ()
    #: Bounds of the time when it was received.
    since: datetime | None = None
    until: datetime | None = None
    #: One of its reasons has this code, such as unknown_template.
    code: str | None = None
    producer: str | None = None

    def as_dict(self) -> dict[str, Any]:
        if self.ids:
            return {"ids": [str(value) for value in self.ids]}
        return {"filter": {name: value for name, value in asdict(self).items() if value}}


def chosen(selection: RejectedSelection, *, again: bool = True) -> Iterator[ColumnElement[bool]]:
    """The selection as conditions. Without `again`, a filter leaves out messages that were replayed."""
    if selection.ids:
        yield among(RejectedMessage.id, selection.ids)
        return
    if not again:
        yield RejectedMessage.replayed_at.is_(None)
    yield from within(RejectedMessage.received_at, selection.since, selection.until)
    if selection.code is not None:
        yield RejectedMessage.faults.contains([{"code": selection.code}])
    yield from matching(RejectedMessage, selection, "producer")
