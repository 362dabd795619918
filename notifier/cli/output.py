"""How commands print: answers on standard output, hints and errors on standard error.

On a terminal there are colours and tables. In a pipe, lines are plain, with tabs between columns. With `--json`,
there is one JSON document and nothing else.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from enum import Enum
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar
from uuid import UUID

if TYPE_CHECKING:  # rich takes a moment to import, and a pipe does not need it
    from rich.console import Console

T = TypeVar("T")

#: What a terminal would obey instead of show: C0 and C1 controls, and marks that change the text's direction.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_STATUS_STYLES = {
    "sent": "green",
    "delivered": "bold green",
    "failed": "bold red",
    "undelivered": "red",
    "suppressed": "red",
    "unknown": "bold yellow",
    "retrying": "yellow",
    "expired": "dim",
    "cancelled": "dim",
}


def clean(text: str) -> str:
    """The text with control characters escaped (`\\x1b`), because texts of producers must not control a
    terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def one_line(text: str) -> str:
    """Like `clean`, with line breaks and tabs escaped as well: for cells and lists."""
    return clean(text).replace("\n", "\\n").replace("\t", "\\t")


def utc(moment: datetime | None, *, milliseconds: bool = False) -> str:
    """`2026-11-22 09:30:00`, in UTC as everywhere in the record; "" for None."""
    if moment is None:
        return ""
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return text[:-3] if milliseconds else text[:-7]


def when(moment: datetime) -> str:
    """A time in a table. On a terminal, the current year is left out to save room."""
    text = utc(moment)
    is_short = is_terminal(sys.stdout) and moment.astimezone(UTC).year == datetime.now(UTC).year
    return text[5:] if is_short else text


def status_style(status: str) -> str:
    return _STATUS_STYLES.get(status, "cyan")


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def console(stream: TextIO) -> Console:
    """A console on that stream. It respects NO_COLOR, and only colours what we style ourselves."""
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)


def print_line(text: str = "", style: str = "") -> None:
    print_parts((text, style))


def hint(text: str) -> None:
    """Print what was done, or what to do next. It goes to standard error, so that pipes stay clean."""
    print_parts((text, "dim"), stream=sys.stderr)


def warn(text: str) -> None:
    """Print something that the caller should look at."""
    print_parts((text, "yellow"), stream=sys.stderr)


def print_parts(*parts: tuple[str, str], stream: TextIO | None = None) -> None:
    """Print one line of texts, each with its style."""
    stream = stream or sys.stdout
    if any(style for _, style in parts) and is_terminal(stream):
        from rich.text import Text

        console(stream).print(Text.assemble(*parts), soft_wrap=True)
    else:
        stream.write("".join(text for text, _ in parts) + "\n")


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    column_styles: Mapping[int, Sequence[str]] | None = None,
    *,
    droppable: Sequence[str] = (),
    shortens_ids: bool = False,
) -> None:
    """A table on a terminal, tab-separated lines in a pipe. None is an empty cell.

    `column_styles` gives the style of each cell of a column. On a terminal that is too narrow, ids are shortened
    if `shortens_ids` is set, and columns in `droppable` are left out, starting with the first. A pipe always gets
    everything.
    """
    cells = [["" if cell is None else one_line(str(cell)) for cell in row] for row in rows]
    if not is_terminal(sys.stdout):
        for row in (headers, *cells):
            sys.stdout.write("\t".join(row) + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    screen = console(sys.stdout)
    if shortens_ids and sum(_widths(headers, cells).values()) > screen.width:
        _shorten(cells, headers.index("id"))
    shown = _fitting(headers, cells, droppable, screen.width)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for index in shown:
        # A cut or folded id cannot be copied; everything else may be folded.
        table.add_column(headers[index], no_wrap=headers[index] in _WHOLE, overflow="fold")
    styles = column_styles or {}
    for number, texts in enumerate(cells):
        table.add_row(*(Text(texts[i], style=styles[i][number] if i in styles else "") for i in shown))
    screen.print(table)


def print_list(
    found: Sequence[T],
    columns: Mapping[str, Callable[[T], object]],
    *,
    as_json: bool,
    noun: str,
    empty: str,
    next_step: str = "",
    droppable: Sequence[str] = (),
    shortens_ids: bool = False,
    styles: Mapping[str, Callable[[T], str]] | None = None,
    following: object = None,
    to_json: Callable[[T], Any] | None = None,
) -> None:
    """Print what a command found: JSON, or a table with a count and what to do next, or the hint `empty`.

    `columns` gives the value of each cell; None is an empty cell. `following` is the value of `--before` for the
    next page, or None on the last page. `to_json`: what JSON shows of each item, if not all fields.
    """
    if as_json:
        print_json(found if to_json is None else [to_json(one) for one in found])
        return
    if not found:
        hint(empty)
        return
    headers = list(columns)
    values = ((read(one) for read in columns.values()) for one in found)
    rows = [[when(value) if isinstance(value, datetime) else value for value in row] for row in values]
    colours = {headers.index(name): [style(one) for one in found] for name, style in (styles or {}).items()}
    print_table(headers, rows, colours, droppable=droppable, shortens_ids=shortens_ids)
    more = f"; the next page: the same with --before {following}" if following else ""
    then = f"\nnext: {next_step}" if next_step else ""
    hint(f"{count(len(found), noun)}{more}{then}")


def columns(*names: str) -> dict[str, Callable[[Any], object]]:
    """Columns that each show an attribute: `id`, or `received=received_at` under another name."""
    split = (name.partition("=") for name in names)
    return {heading: attrgetter(attribute or heading) for heading, _, attribute in split}


@contextmanager
def progress_bar(total: int | None = None, *, hidden: bool = False) -> Iterator[Callable[[str, int], None]]:
    """A bar on a terminal, or a spinner without `total`; nothing elsewhere. Yields a function to call after each
    step, with the state in words and how much of the total is done."""
    if hidden or not is_terminal(sys.stderr):
        yield lambda _words, _done: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}")]
    if total:
        columns += [BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn()]
    with Progress(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda words, done: bar.update(task, description=words, completed=done)


def count(number: int, noun: str) -> str:
    """`1 template`, `2 templates`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_content(headers: Mapping[str, Any], body: bytes) -> None:
    """Print headers and body of a message that could not be read, as far as they can be shown."""
    if headers:
        print_line("\nheaders", "bold")
        print_pairs((f"  {one_line(name)}", one_line(str(value))) for name, value in headers.items())
    print_line("\nbody", "bold")
    for line in body_lines(body):
        print_line(f"  {line}")


def body_lines(body: bytes) -> list[str]:
    """The body as text with control characters escaped, or as a hex dump if it is not UTF-8."""
    try:
        return clean(body.decode()).splitlines() or ["(empty)"]
    except UnicodeDecodeError:
        return [_hex_line(body, start) for start in range(0, len(body), 16)]


def _hex_line(body: bytes, start: int) -> str:
    row = body[start : start + 16]
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
    return f"{start:08x}  {row.hex(' '):<47}  {shown}"


#: Enough for the millisecond of a UUIDv7, and 12 more bits. Characters.
_SHORT_ID = 18
#: Columns that are never folded.
_WHOLE = ("id", "name", "accepted", "received", "status", "queue")


def _fitting(
    headers: Sequence[str], rows: Sequence[Sequence[str]], droppable: Sequence[str], width: int
) -> list[int]:
    """The columns to show: only as many as fit."""
    needed = _widths(headers, rows)
    for header in droppable:
        if sum(needed.values()) > width:
            needed.pop(headers.index(header), None)
    return list(needed)


def _widths(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[int, int]:
    """The width of each column that is not empty in every row."""
    return {
        index: 2 + max(len(header), *(len(row[index]) for row in rows))
        for index, header in enumerate(headers)
        if any(row[index] for row in rows)
    }


def _shorten(rows: Sequence[list[str]], index: int) -> None:
    """Shorten each id, but keep enough to tell it from the others, and from almost all ids that are not shown."""
    ids = {row[index] for row in rows}
    length = next((size for size in range(_SHORT_ID, 36) if len({id_[:size] for id_ in ids}) == len(ids)), 36)
    for row in rows:
        row[index] = row[index][:length]


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair on a line, with the names in a column. Pairs without a value are left
    out."""
    shown = [(name, clean(str(value))) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print_line(f"{name:<{width}}  {value}")


def stored_size(size: int, stored: int) -> str:
    """`80000 bytes, of which the first 65536 are stored`."""
    return f"{size} bytes" + ("" if stored >= size else f", of which the first {stored} are stored")


def print_json(value: Any) -> None:
    """Print one JSON document: times in RFC 3339, ids as strings, bytes as text if they are UTF-8."""
    sys.stdout.write(json.dumps(as_json(value), ensure_ascii=False, indent=2) + "\n")


def as_json(value: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case UUID() | Path():
            return str(value)
        case date():
            return value.isoformat()
        case bytes():
            return _bytes_as_json(value)
        case Mapping():
            return {str(key): as_json(item) for key, item in value.items()}
        case str() | int() | float() | None:
            return value
    if is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    return [as_json(item) for item in value]


def _bytes_as_json(value: bytes) -> dict[str, str]:
    try:
        return {"encoding": "utf-8", "text": value.decode()}
    except UnicodeDecodeError:
        return {"encoding": "base64", "text": base64.b64encode(value).decode()}
