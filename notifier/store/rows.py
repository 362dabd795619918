"""Rows as records: a column has the name of the record's field, and nothing depends on their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

_Record = TypeVar("_Record")


def columns_of(
    record: type[Any], table: type[Any], *, without: Sequence[str] = (), **instead: Any
) -> tuple[Any, ...]:
    """The columns of `table` that a dataclass has as fields; `instead`: expressions for fields that are none."""
    names = [field.name for field in fields(record) if field.name not in without]
    return tuple(instead[name].label(name) if name in instead else getattr(table, name) for name in names)


def from_row(record: type[_Record], row: Any) -> _Record:
    """The record of a row. Fields without a column keep their defaults; other columns are left out."""
    found = row._mapping
    names = (field.name for field in fields(record))  # type: ignore[arg-type]
    return record(**{name: found[name] for name in names if name in found})
