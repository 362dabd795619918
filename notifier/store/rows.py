"""Rows as records: a column has the name of the record's field, and nothing depends on their order."""

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
    """The columns of `table` that a dataclass has as fields; `instead`: expressions for fields that are none."""
    names = [field.name for field in fields(record) if field.name not in without]
    return tuple(instead[name].label(name) if name in instead else getattr(table, name) for name in names)


def from_row(record: type[_Record], row: Any, **values: Any) -> _Record:
    """The record of a row, as the types of its fields say; `values` are those of fields that are no columns.

    Other fields without a column keep their defaults; other columns are left out.
    """
    places, converters = _places(record, row._fields, *values)  # type: ignore[arg-type]
    given = {name: row[place] for name, place in places}
    for name, convert in converters:
        given[name] = convert(given[name])
    return record(**given, **values)


# Of a few kinds of rows: those of one statement all have the same columns.
@cache
def _places(
    record: type[Any], columns: tuple[str, ...], *given: str
) -> tuple[list[tuple[str, int]], list[tuple[str, Callable[[Any], Any]]]]:
    """Fields with the places of their columns, and those of them whose value is made of the column's."""
    hints = get_type_hints(record)
    found = {column: place for place, column in enumerate(columns)}
    names = [field.name for field in fields(record) if field.name in found and field.name not in given]
    converters = [(name, _converter(hints[name])) for name in names]
    return [(name, found[name]) for name in names], [(name, convert) for name, convert in converters if convert]


def _converter(hint: Any) -> Callable[[Any], Any] | None:
    if get_origin(hint) in (Union, UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        convert = _converter(kinds[0]) if len(kinds) == 1 else None
        return convert and (lambda value: None if value is None else convert(value))
    kind = get_origin(hint) or hint
    if kind in (tuple, frozenset):
        return lambda value: kind(value or ())
    return kind if kind in (bool, float, bytes) or (isinstance(kind, type) and issubclass(kind, Enum)) else None


def matching(table: type[Any], wanted: object, *names: str) -> Iterator[ColumnElement[bool]]:
    """Conditions on the columns of these names, which a filter has as fields; None: no condition."""
    for name in names:
        value = getattr(wanted, name)
        if value is not None:
            yield getattr(table, name) == value


def within(column: Any, since: datetime | None, until: datetime | None) -> Iterator[ColumnElement[bool]]:
    """`since` is inclusive, `until` exclusive; None: no condition."""
    if since is not None:
        yield column >= since
    if until is not None:
        yield column < until


def newest(query: Select[Any], id_: Any, *, limit: int, before: UUID | None) -> Select[Any]:
    """A page, newest first. `before` is the last id of the page before: new rows do not shift the pages."""
    query = query.order_by(id_.desc()).limit(limit)
    return query if before is None else query.where(id_ < before)


def oldest(query: Select[Any], id_: Any, *, limit: int, after: UUID | None) -> Select[Any]:
    """A page, oldest first, of ids above `after`."""
    query = query.order_by(id_).limit(limit)
    return query if after is None else query.where(id_ > after)
