"""Reads a file of messages line by line: CSV with a header row, or one JSON object per line.

A line that cannot be read becomes a `Line` with its faults, and reading continues. At most one line is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from pydantic_core import from_json

from notifier.domain.csv_rows import bounded_lines, read_rows
from notifier.domain.errors import Fault
from notifier.domain.message import MAX_BODY_BYTES, Message

#: Fields that a column fills name by name, such as context.city.
_MAPS = ("context", "metadata")
#: Types that may follow a column's name and a colon: how its text becomes a value.
TYPES = ("string", "integer", "number", "boolean", "json")
_DELIMITERS = ",;\t"


class UnreadableFile(ValueError):
    """The whole file cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """One message of the file, or what is wrong with it."""

    #: Number of the line where it begins, from 1.
    number: int
    #: Fields of the contract in this line.
    entry: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    #: Variables without a given type: plain text of a CSV cell.
    texts: frozenset[str] = frozenset()


def read_json_lines(file: TextIO) -> Iterator[Line]:
    """Read one JSON object per line; empty lines are skipped. `file` must decode with surrogateescape."""
    number = 0
    while text := file.readline(MAX_BODY_BYTES):
        number += 1
        if not text.endswith("\n") and _skip_rest(file):
            yield _bad(number, "too_large", f"longer than {MAX_BODY_BYTES} characters", "Send a shorter one")
        elif text.strip():
            yield _json_line(number, text)


def _skip_rest(file: TextIO) -> bool:
    """Whether the line goes on; if so, the rest of it is read and dropped."""
    goes_on = False
    while text := file.readline(MAX_BODY_BYTES):
        goes_on = True
        if text.endswith("\n"):
            break
    return goes_on


def _json_line(number: int, text: str) -> Line:
    if not _is_utf8(text):
        return _bad(number, "bad_utf8", "is not UTF-8", "Save the file as UTF-8")
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        return _bad(number, "not_json", f"not readable as JSON: {error}", "Write one JSON object a line")
    if not isinstance(value, dict):
        return _bad(number, "not_an_object", "not a JSON object", "Write one JSON object a line")
    return Line(number, value)


def read_csv(file: TextIO, fields: Collection[str] = tuple(Message.model_fields)) -> Iterator[Line]:
    """Read a header row, then one message per row, separated by commas, semicolons or tabs. `file` must decode
    with surrogateescape and keep line ends. `fields` are the fields that a line may have; every other column is a
    variable of the template.

    Raises:
        UnreadableFile: the header row is missing or wrong. Raised before the first line is yielded.
    """
    heading = file.readline(MAX_BODY_BYTES)
    if not heading.strip():
        raise UnreadableFile("the file is empty; begin it with a header row, such as to,template,context.name")
    delimiter = max(_DELIMITERS, key=heading.count)
    header = next(read_rows([heading], delimiter=delimiter))
    if header.problem:
        raise UnreadableFile(f"in the header row {header.problem}; close it")
    columns = [_column(name, fields) for name in header.cells]
    _check_header(columns)
    for row in read_rows(bounded_lines(file), delimiter=delimiter, first_line=2):
        if row.problem:
            yield _bad(row.line, "bad_csv", row.problem, row.fix)
        elif any(row.cells):
            yield _csv_line(row.line, columns, row.cells)


@dataclass(frozen=True, slots=True)
class _Column:
    """What one column fills: a field, or `context` or `metadata` at `key`."""

    heading: str
    field: str
    key: str
    #: One of `TYPES`, or "": a variable then has the type that the template declares, otherwise text.
    type: str


def _column(heading: str, fields: Collection[str]) -> _Column:
    name, _, kind = heading.strip().partition(":")
    first, dot, key = name.partition(".")
    if dot and first in _MAPS and first in fields:
        return _Column(heading, first, key, kind)
    if name in fields and name not in _MAPS:
        return _Column(heading, name, "", kind)
    return _Column(heading, "context", name, kind)


def _check_header(columns: list[_Column]) -> None:
    for column in columns:
        if column.type not in ("", *TYPES):
            raise UnreadableFile(f"column {column.heading!r}: after the colon comes one of {', '.join(TYPES)}")
        if column.field == "context" and not column.key:
            raise UnreadableFile("a column has no name; name every column in the header row")
    places = [(column.field, column.key) for column in columns]
    for column, place in zip(columns, places, strict=True):
        if places.count(place) > 1:
            raise UnreadableFile(f"column {column.heading!r} is there twice; rename one of them")
    if ("to", "") not in places:
        raise UnreadableFile("there is no column `to` in the header row; add it, with one recipient a row")


def _csv_line(number: int, columns: list[_Column], cells: Sequence[str]) -> Line:
    if len(cells) > len(columns):
        problem = f"{len(cells)} cells, and the header row has {len(columns)} columns"
        return _bad(number, "too_many_cells", problem, "Quote cells that hold the separator")
    entry: dict[str, Any] = {}
    faults = []
    for column, cell in zip(columns, cells, strict=False):
        if cell == "":
            continue
        if not _is_utf8(cell):
            faults.append(Fault(column.heading, "bad_utf8", "is not UTF-8", "Save the file as UTF-8"))
            continue
        try:
            value = _READ[column.type](cell)
        except ValueError:
            fix = "Correct the cell, or the type in the header row"
            faults.append(Fault(column.heading, "wrong_type", f"is not of type {column.type}", fix))
            continue
        if column.field in _MAPS:
            entry.setdefault(column.field, {})[column.key] = value
        else:
            entry[column.field] = value
    texts = (column.key for column in columns if column.field == "context" and not column.type)
    return Line(number, entry, tuple(faults), frozenset(texts))


def _boolean(cell: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        return words[cell.strip().lower()]
    except KeyError:
        raise ValueError(cell) from None


_READ: Mapping[str, Callable[[str], Any]] = {
    "": str,
    "string": str,
    "integer": int,
    # JSON's own rule, which refuses "nan" and "1_000".
    "number": lambda cell: _number(json.loads(cell)),
    "boolean": _boolean,
    "json": lambda cell: from_json(cell, allow_inf_nan=False),
}


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(value)
    return value


def _is_utf8(text: str) -> bool:
    # surrogateescape turns invalid bytes into these characters.
    return not any("\udc80" <= character <= "\udcff" for character in text) if not text.isascii() else True


def _bad(number: int, code: str, problem: str, fix: str) -> Line:
    return Line(number, faults=(Fault("", code, problem, fix),))
