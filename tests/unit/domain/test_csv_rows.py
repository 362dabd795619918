from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.csv_rows import (
    MAX_LINE_CHARACTERS,
    MAX_ROW_CHARACTERS,
    CsvRow,
    bounded_lines,
    plain_cell,
    read_rows,
    write_rows,
)

UNCLOSED = "a quote is opened here and not closed"


def rows(text: str) -> list[tuple[int, tuple[str, ...], str]]:
    return [(row.line, row.cells, row.problem) for row in read_rows(io.StringIO(text, newline=""))]


def test_a_quote_that_is_never_closed_costs_its_own_row_only() -> None:
    found = rows('to,name\nada@example.com,"Ada\nbob@example.com,Bob\ncy@example.com,Cy\n')
    assert found == [
        (1, ("to", "name"), ""),
        (2, (), UNCLOSED),
        (3, ("bob@example.com", "Bob"), ""),
        (4, ("cy@example.com", "Cy"), ""),
    ]


def test_a_row_that_goes_on_over_endless_short_lines_is_given_up() -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield 'a,"\n' if taken == 1 else f'",{"x" * 100},"\n'

    given_up = next(read_rows(endless()))
    assert (given_up.line, given_up.problem) == (1, f"the row is longer than {MAX_ROW_CHARACTERS} characters")
    assert taken < MAX_ROW_CHARACTERS


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_of_a_line_that_is_too_long_no_piece_becomes_a_row(end: str) -> None:
    file = io.StringIO(f"a,b\n{'c,' * MAX_LINE_CHARACTERS}{end}" + (f"d,e{end}" if end else ""), newline="")
    found = list(read_rows(bounded_lines(file)))
    assert [(row.line, row.cells, row.problem[:21]) for row in found] == [
        (1, ("a", "b"), ""),
        (2, (), "a line is longer than"),
        *([(3, ("d", "e"), "")] if end else []),
    ]


def test_a_quote_that_a_later_row_would_close_costs_its_own_row_only() -> None:
    found = rows('ada@example.com,"Ada\nbob@example.com,"Bob"\r\ncy@example.com,Cy')
    assert found == [
        (1, (), UNCLOSED),
        (2, ("bob@example.com", "Bob"), ""),
        (3, ("cy@example.com", "Cy"), ""),
    ]


def test_the_line_is_named_where_the_quote_was_opened_and_not_where_the_row_begins() -> None:
    assert rows('a,"two\nlines","open\nb,c\n') == [(2, (), UNCLOSED), (3, ("b", "c"), "")]


def test_cells_of_several_lines_and_doubled_quotes_are_read() -> None:
    assert rows('a,"say ""hi""\nb"\n\nc,d"e\n') == [
        (1, ("a", 'say "hi"\nb'), ""),
        (3, (), ""),
        (4, ("c", 'd"e'), ""),
    ]


def test_a_cell_longer_than_the_limit_costs_its_own_row_only() -> None:
    found = rows(f"a\n{'x' * (csv.field_size_limit() + 1)}\nb\n")
    assert [row[:2] for row in found] == [(1, ("a",)), (2, ()), (3, ("b",))]
    assert "limit" in found[1][2]


@given(st.text(alphabet='a,"\r\n', max_size=60))
def test_no_text_ends_the_reader_or_loses_a_line(text: str) -> None:
    found = list(read_rows(io.StringIO(text, newline="")))
    assert [row.line for row in found] == sorted({row.line for row in found})
    # What follows the last mistake is read as if it stood alone.
    bad = [row.line for row in found if row.problem]
    if bad:
        rest = "".join(io.StringIO(text, newline="").readlines()[bad[-1] :])
        after = [row for row in found if row.line > bad[-1]]
        assert after == list(read_rows(io.StringIO(rest, newline=""), first_line=bad[-1] + 1))


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        " =1",
        "=HYPERLINK(1)",
        "+1555;=1",
        "＝1",
        "'=1",
        "''+x",
        "\ufeff=1",
        "\u00a0=1",
        "\u200b+x",
        '"=1',
    ],
)
def test_what_a_spreadsheet_would_run_is_marked_and_comes_back_as_it_was(cell: str) -> None:
    written = next(csv.reader(io.StringIO(write_rows([[cell]]), newline="")))[0]
    assert written == f"'{cell}"
    assert plain_cell(written) == cell


@pytest.mark.parametrize(
    "cell", ["+15550100123", "-3", "3.14", "", "Ada", "'quoted'", "a=b", "2026-11-29T10:00:00Z"]
)
def test_what_is_no_formula_stays_as_it_is(cell: str) -> None:
    written = next(csv.reader(io.StringIO(write_rows([[cell, "x"]]), newline="")))[0]
    assert written == cell
    assert plain_cell(written) == cell


def test_a_row_has_no_cells_where_it_has_a_problem() -> None:
    assert next(read_rows(['"a"b'])) == CsvRow(1, (), UNCLOSED)
