"""Converts rows into records by column name: a column has the name of a field, and the order does not matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from sqlalchemy import ColumnElement, Select

_Record = TypeVar("_Record")


def columns_of(
    record: type[Any], table: type[Any], *, without: Sequence[str] = (), **instead: Any
) -> tuple[Any, ...]:
    """The columns of `table` that are fields of the dataclass. `instead`: expressions for fields that are not."""
    names = [field.name for field in fields(record) if field.name not in without]
    return tuple(instead[name].label(name) if name in instead else getattr(table, name) for name in names)


def from_row(record: type[_Record], row: Any, **values: Any) -> _Record:
    """The record of a row, with the types of its fields. `values`: fields that are not columns.

    Other fields without a column keep their defaults. Other columns are left out.
    """
    made: _Record = reader(record, row._fields, *values)(row, *values.values())  # type: ignore[arg-type]
    return made


# The cache stays small, because all rows of a statement have the same columns.
@cache
def reader(record: type[_Record], columns: tuple[str, ...], *given: str) -> Callable[..., _Record]:
    """`from_row` for many rows with these columns. The result takes a row, and the values of `given` in order."""
    hints = get_type_hints(record)
    places = {name: place for place, name in enumerate((*columns, *given))}
    every = [field.name for field in fields(record)]  # type: ignore[arg-type]
    assert not set(given).difference(every), f"{record.__name__} has other fields than {given}"
    names = [name for name in every if name in places]
    wanted = [places[name] for name in names]
    converters = [
        (index, convert)
        for index, name in enumerate(names)
        if name not in given and (convert := _converter(hints[name]))
    ]
    # By position if possible: naming twenty fields takes as long as setting them.
    is_unbroken = names == every[: len(names)]

    def read(row: Any, *values: Any) -> _Record:
        cells = (*row, *values)
        made = [cells[place] for place in wanted]
        for index, convert in converters:
            made[index] = convert(made[index])
        return record(*made) if is_unbroken else record(**dict(zip(names, made, strict=True)))

    return read


def _converter(hint: Any) -> Callable[[Any], Any] | None:
    if get_origin(hint) in (Union, UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        convert = _converter(kinds[0]) if len(kinds) == 1 else None
        return convert and (lambda value: None if value is None else convert(value))
    kind = get_origin(hint) or hint
    if kind in (tuple, frozenset):
        return lambda value: kind(value or ())
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _Members(kind).__getitem__
    return kind if kind in (bool, float, bytes) else None


class _Members(dict[Any, Enum]):
    """Value → member of an enum. For another value the enum raises its own error. Calling an enum takes 0.3 µs."""

    def __init__(self, kind: type[Enum]) -> None:
        super().__init__({member.value: member for member in kind})
        self._kind = kind

    def __missing__(self, value: Any) -> Enum:
        return self._kind(value)


def matching(table: type[Any], wanted: object, *names: str) -> Iterator[ColumnElement[bool]]:
    """Conditions on the columns with these names, which are fields of the filter. None: no condition."""
    for name in names:
        value = getattr(wanted, name)
        if value is not None:
            yield getattr(table, name) == value


def within(column: Any, since: datetime | None, until: datetime | None) -> Iterator[ColumnElement[bool]]:
    """Conditions on a time. `since` is inclusive, `until` exclusive. None: no condition."""
    if since is not None:
        yield column >= since
    if until is not None:
        yield column < until


def newest(query: Select[Any], id_: Any, *, limit: int, before: UUID | None) -> Select[Any]:
    """A page, newest first. `before` is the last id of the previous page, so new rows do not shift the pages."""
    query = query.order_by(id_.desc()).limit(limit)
    return query if before is None else query.where(id_ < before)


def oldest(query: Select[Any], id_: Any, *, limit: int, after: UUID | None) -> Select[Any]:
    """A page, oldest first, with ids above `after`."""
    query = query.order_by(id_).limit(limit)
    return query if after is None else query.where(id_ > after)
