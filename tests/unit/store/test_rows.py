"""Rows as records: values become what the types of the fields say."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from notifier.domain.statuses import Channel
from notifier.store.rows import from_row


@dataclass(frozen=True, slots=True)
class Record:
    channel: Channel
    reason: Channel | None
    seconds: float
    left: float | None
    is_test: bool
    ids: tuple[int, ...]
    names: frozenset[str]
    extra: dict[str, Any]
    kept: str = "default"


def row(**columns: Any) -> Any:
    return namedtuple("Row", columns)(*columns.values())


FULL = {
    "channel": "sms",
    "reason": None,
    "seconds": Decimal("1.5"),
    "left": None,
    "is_test": None,
    "ids": [1, 2],
    "names": None,
    "extra": {"a": 1},
    "surplus": "left out",
}


def test_columns_become_the_types_of_the_fields() -> None:
    found = from_row(Record, row(**FULL))
    assert found == Record(Channel.SMS, None, 1.5, None, False, (1, 2), frozenset(), {"a": 1})
    assert (type(found.channel), type(found.seconds), found.kept) == (Channel, float, "default")


def test_given_values_win_over_columns() -> None:
    found = from_row(Record, row(**FULL), ids=(3,), kept="given")
    assert (found.ids, found.kept) == ((3,), "given")
