"""Files of messages: each line a message or its faults, and never the end of the others."""

from __future__ import annotations

import io
from typing import TextIO

import pytest

from notifier.cli.message_files import Line, UnreadableFile, read_csv, read_json_lines
from notifier.domain.message import MAX_BODY_BYTES


def opened(content: str | bytes, newline: str = "") -> TextIO:
    raw = content if isinstance(content, bytes) else content.encode()
    return io.TextIOWrapper(io.BytesIO(raw), "utf-8-sig", errors="surrogateescape", newline=newline)


def csv_lines(content: str | bytes) -> list[Line]:
    return list(read_csv(opened(content)))


def json_lines(content: str | bytes) -> list[Line]:
    return list(read_json_lines(opened(content, "\n")))


def test_columns_are_fields_or_variables() -> None:
    [line] = csv_lines("to,locale,context.name,city,metadata.batch\nann@example.com,fr,Ann,Bonn,7\n")
    assert line.number == 2
    assert line.entry == {
        "to": "ann@example.com",
        "locale": "fr",
        "context": {"name": "Ann", "city": "Bonn"},
        "metadata": {"batch": "7"},
    }


def test_a_column_named_as_a_field_that_the_file_does_not_have_is_a_variable() -> None:
    content = "to,lane,metadata.batch,context.at,locale\nann@example.com,3,7,noon,fr\n"
    [line] = read_csv(opened(content), ("to", "context", "locale"))
    context = {"lane": "3", "metadata.batch": "7", "at": "noon"}
    assert line.entry == {"to": "ann@example.com", "locale": "fr", "context": context}


def test_a_column_may_say_its_type() -> None:
    header = "to,a:integer,b:number,c:boolean,d:json,context.e:string,f"
    [line] = csv_lines(f'{header}\nx@example.com,7,1.5,yes,"{{""k"": [1]}}",042,042\n')
    assert line.entry["context"] == {"a": 7, "b": 1.5, "c": True, "d": {"k": [1]}, "e": "042", "f": "042"}
    assert line.texts == {"f"}


@pytest.mark.parametrize(
    ("kind", "cell"),
    [("integer", "x"), ("number", "nan"), ("number", "true"), ("boolean", "maybe"), ("json", "{")],
)
def test_a_cell_of_another_type_is_a_fault_of_its_line(kind: str, cell: str) -> None:
    bad, good = csv_lines(f"to,n:{kind}\na@example.com,{cell}\nb@example.com,\n")
    assert [(fault.field, fault.code) for fault in bad.faults] == [(f"n:{kind}", "wrong_type")]
    assert not good.faults


def test_empty_cells_and_empty_rows_say_nothing() -> None:
    lines = csv_lines("to,reference,name\n\na@example.com,,\n,,\nb@example.com,r\n")
    assert [(line.number, line.entry) for line in lines] == [
        (3, {"to": "a@example.com"}),
        (5, {"to": "b@example.com", "reference": "r"}),
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_seen_in_the_header(separator: str) -> None:
    [line] = csv_lines(f"to{separator}name\r\na@example.com{separator}Ann\r\n")
    assert line.entry == {"to": "a@example.com", "context": {"name": "Ann"}}


def test_a_quoted_cell_may_hold_lines_and_the_numbers_stay_right() -> None:
    lines = csv_lines('to,note\na@example.com,"one\ntwo"\nb@example.com,x\n')
    assert [line.number for line in lines] == [2, 4]
    assert lines[0].entry["context"] == {"note": "one\ntwo"}


def test_a_row_with_too_many_cells_is_a_fault() -> None:
    bad, good = csv_lines("to,name\na@example.com,Ann,B\nb@example.com,Bob\n")
    assert bad.faults[0].code == "too_many_cells"
    assert good.entry["to"] == "b@example.com"


def test_bytes_that_are_not_utf8_are_a_fault_of_their_line() -> None:
    bad, good = csv_lines(b"to,name\na@example.com,\xff\nb@example.com,B\xc3\xb6b\n")
    assert bad.faults[0].code == "bad_utf8"
    assert good.entry["context"] == {"name": "Böb"}


def test_a_quote_that_is_never_closed_is_a_fault() -> None:
    [bad] = csv_lines('to,name\na@example.com,"' + "x" * 200_000)
    assert bad.faults[0].code == "bad_csv"


def test_a_quote_that_is_never_closed_swallows_no_other_row() -> None:
    bad, *good = csv_lines('to,context.name\nada@example.com,"Ada\nbob@example.com,Bob\ncy@example.com,Cy\n')
    assert (bad.number, str(bad.faults[0])) == (
        2,
        "body: a quote is opened here and not closed. Close the quote, or write two for one in the text.",
    )
    assert [(line.number, line.entry["to"]) for line in good] == [(3, "bob@example.com"), (4, "cy@example.com")]


def test_a_quote_in_the_header_row_that_is_never_closed_is_told() -> None:
    with pytest.raises(UnreadableFile, match="header row a quote is opened"):
        csv_lines('to,"context.name\nada@example.com,Ada\n')


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("", "empty"),
        ("name,city", "no column `to`"),
        ("to,name,context.name", "twice"),
        ("to,,name", "no name"),
        ("to,n:float", "integer"),
    ],
)
def test_a_wrong_header_makes_the_file_unreadable(header: str, why: str) -> None:
    with pytest.raises(UnreadableFile, match=why):
        csv_lines(f"{header}\na,b,c\n")


def test_json_lines_are_objects() -> None:
    lines = json_lines('\ufeff{"to": "a@example.com"}\r\n\n{"to": "b@example.com", "context": {"n": 1}}')
    assert [(line.number, line.entry) for line in lines] == [
        (1, {"to": "a@example.com"}),
        (3, {"to": "b@example.com", "context": {"n": 1}}),
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"nope", "not_json"),
        (b"[1]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"a": NaN}', "not_json"),
        (b'{"a": "\xff"}', "bad_utf8"),
        (b"[" * 100_000, "not_json"),
    ],
)
def test_a_broken_json_line_is_a_fault_and_the_next_one_is_read(text: bytes, code: str) -> None:
    bad, good = json_lines(text + b'\n{"to": "a@example.com"}\n')
    assert [fault.code for fault in bad.faults] == [code]
    assert good.number == 2
    assert good.entry == {"to": "a@example.com"}


def test_a_line_beyond_the_limit_is_passed_over_without_being_held() -> None:
    bad, good = json_lines(b"x" * (3 * MAX_BODY_BYTES) + b'\n{"to": "a@example.com"}\n')
    assert bad.faults[0].code == "too_large"
    assert (good.number, good.faults) == (2, ())
