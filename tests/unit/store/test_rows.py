"""Rows as records: values become what the types of the fields say."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

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


def test_a_given_value_is_taken_as_it_is() -> None:
    found: Any = from_row(Record, row(**FULL), seconds="as it is").seconds
    assert found == "as it is"


def test_fields_without_a_column_keep_their_defaults_wherever_they_stand() -> None:
    @dataclass(frozen=True, slots=True)
    class Gap:
        first: int = 1
        second: int = 2
        third: int = 3

    assert from_row(Gap, row(third=30, first=10)) == Gap(10, 2, 30)
    assert from_row(Gap, row(surplus=0)) == Gap()


def test_a_word_that_an_enum_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="'fax' is not a valid Channel"):
        from_row(Record, row(**FULL | {"channel": "fax"}))
