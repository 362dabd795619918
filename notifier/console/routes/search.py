"""The search for notifications: one box that takes whatever you have, and filters. URLs never contain a
recipient."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from notifier.api.routes.search import export_of, limited
from notifier.api.schemas import Words, read_cursor, read_filter, write_cursor
from notifier.console.forms import Day, Empty
from notifier.console.parts import PartsDep
from notifier.console.session import PageRoute, ReaderThere
from notifier.domain.errors import WrongSelection
from notifier.domain.statuses import Channel, Reason, Status
from notifier.operations.api_keys import Holder
from notifier.operations.lookup import look_up, record_read
from notifier.store.filters import Filter

router = APIRouter(route_class=PageRoute, include_in_schema=False)

#: Notifications on a page.
PAGE = 50


class SearchForm(BaseModel):
    """The conditions, as the form and the page's URL have them. Days are in the service's time zone."""

    model_config = ConfigDict(extra="ignore")

    #: Hashes of the recipient in hex, separated by commas.
    to: Annotated[Annotated[str, Field(max_length=400, pattern=r"^[0-9a-f,]+$")] | None, Empty] = None
    reference: Annotated[Words | None, Empty] = None
    producer: Annotated[Words | None, Empty] = None
    template: Annotated[Words | None, Empty] = None
    provider: Annotated[Words | None, Empty] = None
    status: Annotated[Status | None, Empty] = None
    reason: Annotated[Reason | None, Empty] = None
    channel: Annotated[Channel | None, Empty] = None
    #: The first day.
    since: Day = None
    #: The last day, inclusive.
    until: Day = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since is not None and self.until is not None and self.since > self.until:
            raise PydanticCustomError("days_out_of_order", "the first day is after the last one: swap them")
        return self

    def filter(self, holder: Holder, zone: ZoneInfo) -> Filter:
        """The filter, limited to what the key may see. Raises `WrongSelection`."""
        return limited(holder, read_filter(Filter, self, **self._places(zone)))

    def _places(self, zone: ZoneInfo) -> dict[str, Any]:
        try:
            hashes = tuple(bytes.fromhex(each) for each in self.to.split(",")) if self.to else None
        except ValueError:
            raise WrongSelection("the address of this page is damaged: search again") from None
        return {
            "recipient_hashes": hashes,
            "since": _begin(self.since, zone),
            "until": _begin(self.until and self.until + timedelta(days=1), zone),
        }

    def query(self) -> dict[str, str]:
        """The fields that are set, for a URL."""
        return {name: str(value) for name, value in self.model_dump(mode="json", exclude_none=True).items()}


class SearchQuery(SearchForm):
    after: Annotated[str | None, Field(max_length=50)] = None
    #: A file with everything that is found, instead of the page.
    export: Literal["csv", "jsonl"] | None = None


@router.get("/search")
def search(
    parts: PartsDep, visitor: ReaderThere, request: Request, wanted: Annotated[SearchQuery, Query()]
) -> Response:
    audit, holder = parts.api.audit, visitor.holder
    found = wanted.filter(holder, parts.services.settings.timezone)
    if wanted.export:
        record_read(parts.api.operator_actions, holder, "export", found)
        return export_of(audit, parts.api.long_reads, holder, found, wanted.export)
    with ExitStack() as places:
        if found.may_take_long:
            places.callback(parts.api.long_reads.begin(holder.share))
        page = audit.search(found, limit=PAGE, before=read_cursor(wanted.after))
    unfound = parts.services.unfound_by_address() if wanted.to else None
    query = {name: value for name, value in wanted.query().items() if name not in ("after", "export")}
    following = {**query, "after": write_cursor(page[-1].id)} if len(page) == PAGE else None
    return parts.pages.page(
        request,
        "search.html",
        found=page,
        form=query,
        unfound=unfound,
        address=_address(query),
        following=following and _address(following),
        exports={kind: _address({**query, "export": kind}) for kind in ("csv", "jsonl")},
        reasons=list(Reason),
    )


@router.post("/search")
def find(
    parts: PartsDep, visitor: ReaderThere, request: Request, typed: Annotated[str, Form(max_length=400)] = ""
) -> Response:
    """Handle the box: go to the notification that is meant, or to a list. The URL of either can be shared."""
    found = look_up(parts.api.audit, visitor.holder, typed)
    if found.notification is not None:
        return RedirectResponse(f"/notifications/{found.notification}", 303)
    if found.unclear:
        return parts.pages.page(request, "number.html", typed=found.unclear)
    assert found.filter is not None
    if found.filter.recipient_hashes:
        record_read(parts.api.operator_actions, visitor.holder, "look_up", found.filter)
    return RedirectResponse(_address(_named(found.filter)), 303)


def _named(wanted: Filter) -> Mapping[str, str]:
    if wanted.recipient_hashes:
        return {"to": ",".join(each.hex() for each in wanted.recipient_hashes)}
    return {"reference": wanted.reference or ""}


def _address(query: Mapping[str, str]) -> str:
    return f"/search?{urlencode(query)}" if query else "/search"


def _begin(day: date | None, zone: ZoneInfo) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), zone).astimezone(UTC)
