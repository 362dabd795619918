"""Exports everything that a search finds as CSV or JSON lines, page by page to bound memory.

A failure in the middle breaks the connection, so a file that ends properly is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from pydantic import TypeAdapter

from notifier.domain.csv_rows import write_rows
from notifier.store.search import NotificationView

MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl; charset=utf-8"}

_COLUMNS = tuple(NotificationView.__dataclass_fields__)
_PAGE = TypeAdapter(list[NotificationView])

Pages = Iterable[Sequence[NotificationView]]


def wanted(accept: str) -> Literal["json", "csv", "jsonl"]:
    """The first of our formats in the header `Accept`."""
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind == "text/csv":
            return "csv"
        if kind in ("application/jsonl", "application/x-ndjson", "application/json-lines"):
            return "jsonl"
        if kind in ("application/json", "*/*"):
            return "json"
    return "json"


def csv_lines(first: Sequence[NotificationView], rest: Pages) -> Iterator[str]:
    """CSV as in RFC 4180, with a header line and metadata as JSON. `write_rows` handles formulas."""
    yield write_rows([_COLUMNS])
    for page in _pages(first, rest):
        yield write_rows([_cell(row[name]) for name in _COLUMNS] for row in page)


def json_lines(first: Sequence[NotificationView], rest: Pages) -> Iterator[str]:
    for page in _pages(first, rest):
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in page)


def _pages(first: Sequence[NotificationView], rest: Pages) -> Iterator[list[dict[str, Any]]]:
    yield _PAGE.dump_python(list(first), mode="json")
    for page in rest:
        yield _PAGE.dump_python(list(page), mode="json")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | bool) else str(value)
