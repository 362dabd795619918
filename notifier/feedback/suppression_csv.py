"""Imports and exports suppressions as CSV. Exports contain no addresses.

A file is either a plain list with one address on each line, or begins with a header row: `address`, or
`address_hash` and `hash_key` of an export under the same key, and optionally `channel`, `scope`, `reason`,
`expires_at` and `detail`. Each line is checked by itself, so a wrong line does not stop the others. Only one page
of lines is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import Any, TextIO

from notifier.domain.csv_rows import bounded_lines, plain_cell, read_rows, write_rows
from notifier.domain.errors import Fault, InvalidMessage
from notifier.domain.recipient_identity import recipient_faults
from notifier.domain.statuses import Channel, SuppressionReason
from notifier.feedback.suppressions import GLOBAL, expiry_faults, scope_faults
from notifier.security.recipient_hash import HashKey
from notifier.store.records import NewSuppression
from notifier.store.suppressions import SuppressionRepository, SuppressionView

#: Lines in one transaction.
PAGE = 500
#: Maximum characters read of the first line.
MAX_LINE = 10_000

#: The columns of an export, in order. An import also knows `address`.
COLUMNS = tuple(name for name in SuppressionView.__dataclass_fields__ if name != "id")
_KNOWN = frozenset({"address", *COLUMNS})


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that was left out, with its faults. The line itself is not kept, because it names somebody."""

    line: int
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of the lines of a file."""

    #: Not suppressed before.
    new: int = 0
    #: Already suppressed.
    known: int = 0
    #: Left out, because the export says that they have ended.
    ended: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class SuppressionDefaults:
    """Values for lines that do not have their own."""

    source: str
    #: None: SMS if the recipient begins with "+", otherwise e-mail.
    channel: Channel | None = None
    scope: str = GLOBAL
    reason: SuppressionReason = SuppressionReason.MANUAL


class SuppressionFiles:
    """Reads files of suppressions. `read` may raise `ServiceUnavailable` at any page; earlier pages are done then.
    The file can be read again, because nothing is added twice."""

    def __init__(self, suppressions: SuppressionRepository, hash_key: HashKey) -> None:
        self._suppressions = suppressions
        self._hash_key = hash_key

    def read(
        self, file: TextIO, defaults: SuppressionDefaults, report: Callable[[Bad], None], *, dry_run: bool = False
    ) -> Imported:
        """Add the suppressions in a file. `report` receives every line that was left out. A dry run counts valid
        lines as new. `file` must decode with surrogateescape and keep line ends.

        Raises:
            InvalidMessage: the header row or a default is wrong; nothing was added.
        """
        faults = scope_faults(defaults.scope)
        if faults:
            raise InvalidMessage(faults)
        lines = _lines(file)
        new = known = ended = bad = 0
        while page := list(islice(lines, PAGE)):
            rows: list[NewSuppression] = []
            for line in page:
                found = line if isinstance(line, Bad) else self._judge(line, defaults)
                if isinstance(found, Bad):
                    bad += 1
                    report(found)
                elif found is None:
                    ended += 1
                else:
                    rows.append(found)
            added = len(rows) if dry_run else self._suppressions.add(rows)
            new += added
            known += len(rows) - added
        return Imported(new, known, ended, bad)

    def _judge(self, line: _Line, defaults: SuppressionDefaults) -> NewSuppression | Bad | None:
        cells = line.cells
        faults: list[Fault] = []
        if cells.get("state", "active") != "active":
            return None
        address, hexadecimal = cells.get("address"), cells.get("address_hash")
        guess = Channel.SMS if (address or "").startswith("+") else Channel.EMAIL
        channel = _word(Channel, cells, "channel", defaults.channel or guess, faults)
        reason = _word(SuppressionReason, cells, "reason", defaults.reason, faults)
        scope = cells.get("scope", defaults.scope)
        faults += scope_faults(scope)
        expires_at = _time(cells.get("expires_at"), faults, self._suppressions.now())
        if address is not None:
            faults += recipient_faults(address, channel, "address")
            address_hash = self._hash_key.recipient(channel, address)
        else:
            address_hash = self._hash_of(hexadecimal, cells, faults)
        if faults:
            return Bad(line.number, tuple(faults))
        return NewSuppression(
            address_hash,
            self._hash_key.fingerprint,
            channel,
            scope,
            reason,
            defaults.source,
            _detail(cells),
            None,
            expires_at,
        )

    def _hash_of(self, hexadecimal: str | None, cells: Mapping[str, str], faults: list[Fault]) -> bytes:
        """The hash in a line of an export."""
        if hexadecimal is None:
            faults.append(Fault("address", "missing", "is missing", "Add it, or address_hash and hash_key"))
            return b""
        if cells.get("hash_key") != self._hash_key.fingerprint:
            fix = "Import the addresses themselves, or set the NOTIFIER_HASH_KEY of the export"
            faults.append(Fault("hash_key", "bad_choice", "is not of our key: nobody would be found", fix))
        try:
            found = bytes.fromhex(hexadecimal)
        except ValueError:
            found = b""
        if len(found) != 32:
            fix = "Leave exports as they are"
            faults.append(Fault("address_hash", "bad_format", "is not 64 hexadecimal digits", fix))
        return found


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    #: Without empty cells.
    cells: Mapping[str, str]


def write_csv(found: Iterable[SuppressionView]) -> Iterator[str]:
    """CSV as in RFC 4180 with a header row, one page at a time: with hashes, never an address."""
    pages = iter(found)
    yield write_rows([COLUMNS])
    while page := list(islice(pages, PAGE)):
        yield write_rows([_cell(getattr(one, name)) for name in COLUMNS] for one in page)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _lines(file: TextIO) -> Iterator[_Line | Bad]:
    """Every line that is not empty.

    Raises:
        InvalidMessage: the header row is wrong. Raised before the first line is yielded.
    """
    first = file.readline(MAX_LINE)
    names = [name.strip().lower() for row in read_rows([first]) for name in row.cells]
    if not _KNOWN.intersection(names):
        # A plain list: its first line is a recipient.
        return _rows(chain([first], bounded_lines(file)), ("address",), 1)
    unknown = [name for name in names if name not in _KNOWN]
    faults = [Fault(name[:50], "unknown_field", "is not a column", "Remove it, or rename it") for name in unknown]
    twice = dict.fromkeys(name for name in names if names.count(name) > 1)
    faults += [Fault(name, "bad_choice", "appears twice", "Remove one") for name in twice]
    if not {"address", "address_hash"}.intersection(names):
        faults.append(Fault("address", "missing", "is missing in the header row", "Add it"))
    if faults:
        raise InvalidMessage(faults)
    return _rows(bounded_lines(file), tuple(names), 2)


def _rows(text: Iterable[str], names: tuple[str, ...], begins: int) -> Iterator[_Line | Bad]:
    for row in read_rows(text, first_line=begins):
        # An export marks cells that a spreadsheet would read as a formula.
        values = (plain_cell(cell).strip() for cell in row.cells)
        cells = {name: value for name, value in zip(names, values, strict=False) if value}
        if row.problem:
            yield _bad(row.line, "bad_csv", row.problem, row.fix)
        elif len(row.cells) > len(names):
            problem = f"{len(row.cells)} cells, and there are {len(names)} columns"
            yield _bad(row.line, "too_many_cells", problem, "Quote cells that hold the separator")
        elif any("\udc80" <= character <= "\udcff" for cell in row.cells for character in cell):
            yield _bad(row.line, "bad_utf8", "is not UTF-8", "Save the file as UTF-8")
        elif cells:
            yield _Line(row.line, cells)


def _bad(number: int, code: str, problem: str, fix: str) -> Bad:
    return Bad(number, (Fault("", code, problem, fix),))


def _word(words: Any, cells: Mapping[str, str], name: str, default: Any, faults: list[Fault]) -> Any:
    try:
        return words(cells[name].lower()) if name in cells else default
    except ValueError:
        faults.append(Fault(name, "bad_choice", f"is not one of {', '.join(words)}", "Use one of them"))
        return default


def _time(text: str | None, faults: list[Fault], now: datetime) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        fix = "Write it as 2026-11-22T09:30:00Z"
        faults.append(Fault("expires_at", "bad_time", "is not a date and time with an offset", fix))
        return None
    faults += expiry_faults(found, now)
    return found


def _detail(cells: Mapping[str, str]) -> str | None:
    """The file's detail. For an export it includes source and date, so that the history is not lost."""
    before = " since ".join(cells[name] for name in ("source", "created_at") if name in cells)
    parts = (cells.get("detail"), f"before: {before}" if before else None)
    return "; ".join(part for part in parts if part) or None
