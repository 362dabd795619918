"""Reads and writes CSV (RFC 4180): a mistake costs one row only, and spreadsheets run no formula that we write."""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from notifier.domain.message import MAX_BODY_BYTES

#: Spreadsheets take a cell with such a beginning for a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
#: Characters that a reader does not see and some programs drop: spaces, invisible characters, quotes.
_UNSEEN = re.compile(r"[\s\"\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]*")
#: A number, also a telephone number, begins like a formula but is none.
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

#: As long as the largest message.
MAX_LINE_CHARACTERS = MAX_BODY_BYTES
#: A row may have several lines, and each quote in its cells is doubled.
MAX_ROW_CHARACTERS = 2 * MAX_LINE_CHARACTERS


@dataclass(frozen=True, slots=True)
class CsvRow:
    """A row, or why it cannot be read."""

    #: The line of the file where the row begins, from 1. If it cannot be read: where the quote was opened.
    line: int
    cells: tuple[str, ...] = ()
    #: What is wrong with the row; "" if nothing is.
    problem: str = ""
    #: How to correct that.
    fix: str = "Close the quote, or write two for one in the text"


def read_rows(lines: Iterable[str], *, delimiter: str = ",", first_line: int = 1) -> Iterator[CsvRow]:
    """The rows of `lines`, which keep their line ends. Empty lines have no cells.

    A quote that is never closed, or only inside a later row, would swallow the rows between. Such a row is given
    up with the line number of that quote, and reading goes on with the next line. A row that grows too long is
    given up with all of its lines. If the lines come from `bounded_lines`, no more than one row is in memory, with
    at most 128 KiB for each cell (`csv.field_size_limit`).
    """
    source = _Lines(lines, first_line)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        source.begin_row()
        begins = source.next_line
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _RowTooLong:
            problem = f"the row is longer than {MAX_ROW_CHARACTERS} characters"
            yield CsvRow(begins, problem=problem, fix="Close the quote in it, or shorten it")
        except csv.Error as error:
            at_end = "end of data" in str(error)
            opened = _open_quote(source.taken, delimiter, at_end=at_end)
            yield CsvRow(source.give_back_after(opened), problem=_problem(error))
        else:
            if any(map(_is_cut, source.taken)):
                problem = f"a line is longer than {MAX_LINE_CHARACTERS} characters"
                yield CsvRow(begins, problem=problem, fix="Shorten it")
                continue
            yield CsvRow(begins, tuple(cells))


def bounded_lines(file: TextIO) -> Iterator[str]:
    """The lines of a file. A line that is too long is cut, and its rest discarded; `read_rows` detects that."""
    while line := file.readline(MAX_LINE_CHARACTERS):
        rest = line
        while _is_cut(rest):
            rest = file.readline(MAX_LINE_CHARACTERS)
        yield line


def _is_cut(line: str) -> bool:
    return len(line) >= MAX_LINE_CHARACTERS and not line.endswith(("\n", "\r"))


class _RowTooLong(Exception):
    pass


class _Lines:
    """The lines of a file. Remembers the lines of the current row, and can give them back."""

    def __init__(self, lines: Iterable[str], first_line: int) -> None:
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self.next_line = first_line
        #: The lines of the current row.
        self.taken: list[str] = []
        self._room = MAX_ROW_CHARACTERS

    def begin_row(self) -> None:
        self.taken.clear()
        self._room = MAX_ROW_CHARACTERS

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        self.next_line += 1
        self._room -= len(line)
        if self._room < 0:
            raise _RowTooLong
        return line

    def give_back_after(self, index: int) -> int:
        """Give back the lines of the row after its line `index`, from 0. Returns the number of that line."""
        after = self.taken[index + 1 :]
        self._again.extendleft(reversed(after))
        self.next_line -= len(after)
        return self.next_line - 1


def _open_quote(lines: Sequence[str], delimiter: str, *, at_end: bool) -> int:
    """Index of the line whose quote kept the row open: until the end of its last line if `at_end`, otherwise until
    its last line."""
    opened, is_open, before = len(lines) - 1, False, delimiter
    for index, line in enumerate(lines if at_end else lines[:-1]):
        for character in line:
            if character == '"':
                if is_open:
                    is_open = False
                elif before == '"':
                    is_open = True  # two quotes are one in the text
                elif before in (delimiter, "\n", "\r"):
                    is_open, opened = True, index
            before = character
    return opened if is_open else len(lines) - 1


def _problem(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text or "expected after" in text:
        return "a quote is opened here and not closed"
    return f"not readable as CSV: {text}"


def write_rows(rows: Iterable[Iterable[str]]) -> str:
    """The rows as CSV. A cell that a spreadsheet would take for a formula gets a ' in front: see `plain_cell`."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_safe_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _safe_cell(cell: str) -> str:
    return f"'{cell}" if _is_marked_or_formula(cell) else cell


def plain_cell(cell: str) -> str:
    """The cell of an export as it was before `write_rows` marked it."""
    return cell[1:] if cell.startswith("'") and _is_marked_or_formula(cell) else cell


def _is_marked_or_formula(cell: str) -> bool:
    """A cell that already begins with ' and a formula is marked once more, so that it comes back unchanged."""
    return _is_formula(cell.lstrip("'"))


def _is_formula(cell: str) -> bool:
    seen = cell[_UNSEEN.match(cell).end() :]  # type: ignore[union-attr]  # the pattern matches any text
    begins_so = seen.startswith(_FORMULA) or cell.lstrip(" ").startswith(_FORMULA)
    return begins_so and not _NUMBER.fullmatch(cell)
