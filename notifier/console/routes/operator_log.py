"""The page of operator records: who did what, when and why, and the result."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from itertools import chain
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from notifier.api.export import MEDIA_TYPES
from notifier.api.schemas import read_cursor, write_cursor
from notifier.console.forms import Condition, Day
from notifier.console.parts import PartsDep
from notifier.console.session import OperatorThere, PageRoute
from notifier.domain.csv_rows import write_rows
from notifier.domain.local_days import day_bounds
from notifier.store.operator_actions import RecordView
from notifier.store.operator_log import RecordFilter

router = APIRouter(route_class=PageRoute, include_in_schema=False)

#: Records on a page.
PAGE = 50
#: Maximum ids of one selection that are linked on its page.
LINKED = 100
#: Where the ids of a selection link to: action → the path before the id.
_PATHS = {
    "retry": "/notifications/",
    "cancel": "/notifications/",
    "resolve_sent": "/notifications/",
    "resolve_resend": "/notifications/",
    "replay_rejected": "/rejected/",
    "replay_edited": "/rejected/",
}
_COLUMNS = tuple(field.name for field in fields(RecordView))


class LogQuery(BaseModel):
    """Which records, as the page's URL has it. Days are in the service's time zone."""

    operator: Condition = None
    action: Condition = None
    day: Day = None
    after: Annotated[str | None, Field(max_length=50)] = None
    #: A file with everything that is found, instead of the page.
    export: Literal["csv", "jsonl"] | None = None


@router.get("/log")
def log(parts: PartsDep, _: OperatorThere, request: Request, wanted: Annotated[LogQuery, Query()]) -> Response:
    zone = parts.services.settings.timezone
    since, until = (None, None) if wanted.day is None else day_bounds(wanted.day, zone)
    conditions = RecordFilter(wanted.operator, wanted.action, since, until)
    if wanted.export:
        pages = parts.log.pages(conditions)
        # Read before the answer begins, so that an unreachable database gives an error page and not half a file.
        return _export(chain([next(pages, ())], pages), wanted.export)
    found = parts.log.page(conditions, limit=PAGE, before=read_cursor(wanted.after))
    query = wanted.model_dump(mode="json", exclude={"after", "export"}, exclude_none=True)
    return parts.pages.page(
        request,
        "log.html",
        found=found,
        form=wanted,
        actions=parts.log.actions(),
        following=_address(query, after=write_cursor(found[-1].id)) if len(found) == PAGE else None,
        exports={kind: _address(query, export=kind) for kind in ("csv", "jsonl")},
    )


@router.get("/log/{record:uuid}")
def record(parts: PartsDep, _: OperatorThere, request: Request, record: UUID) -> Response:
    found = parts.api.operator_actions.record(record)
    selection = dict(found.selection)
    path = _PATHS.get(found.action)
    ids = selection.pop("ids", []) if path else []
    return parts.pages.page(
        request,
        "record.html",
        record=found,
        ids=ids[:LINKED],
        id_count=len(ids),
        id_path=path,
        selection=json.dumps(selection, ensure_ascii=False, indent=2) if selection else None,
    )


def _address(query: dict[str, str], **more: str) -> str:
    return f"/log?{urlencode({**query, **more})}"


def _export(pages: Iterable[Sequence[RecordView]], kind: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="operator-log.{kind}"'}
    lines = _csv(pages) if kind == "csv" else _json_lines(pages)
    return StreamingResponse(lines, media_type=MEDIA_TYPES[kind], headers=headers)


def _csv(pages: Iterable[Sequence[RecordView]]) -> Iterator[str]:
    yield write_rows([_COLUMNS])
    for page in pages:
        yield write_rows([_cell(value) for value in _plain(one).values()] for one in page)


def _json_lines(pages: Iterable[Sequence[RecordView]]) -> Iterator[str]:
    for page in pages:
        yield "".join(json.dumps(_plain(one), ensure_ascii=False) + "\n" for one in page)


def _cell(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value or "")


def _plain(one: RecordView) -> dict[str, Any]:
    return {
        **asdict(one),
        "id": str(one.id),
        "at": one.at.isoformat(),
        "finished_at": one.finished_at and one.finished_at.isoformat(),
    }
