"""What ended without success: groups of it, what a retry of some would do, and the start of one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BeforeValidator, Field

from notifier.console.parts import PartsDep
from notifier.console.routes.search import SearchForm
from notifier.console.session import OperatorThere, PageRoute
from notifier.domain.message import Time
from notifier.domain.statuses import Status
from notifier.operations import RETRYABLE, Selection
from notifier.operations.api_keys import Holder
from notifier.store.filters import Filter
from notifier.store.operator_actions import SelectionGroup

router = APIRouter(route_class=PageRoute)

#: Groups on the page; what is smaller can be searched for.
GROUPS = 100


class Span(StrEnum):
    """How far back the page looks."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"


_LENGTHS = {Span.HOUR: timedelta(hours=1), Span.DAY: timedelta(hours=24), Span.WEEK: timedelta(days=7)}


class RetryForm(SearchForm):
    """Which ones to retry: as a search, or from a moment on."""

    begin: Annotated[Time | None, BeforeValidator(lambda value: None if value == "" else value)] = None
    status: Status = Status.FAILED

    def selection(self, parts: PartsDep, holder: Holder) -> Selection:
        """Raises `WrongSelection`."""
        found = self.filter(holder, parts.services.settings.timezone)
        return Selection(filter=found if self.begin is None else replace(found, since=self.begin))


class StartForm(RetryForm):
    why: Annotated[str, Field(max_length=500)] = ""
    #: Retries a second; None: all at once.
    rate: Annotated[
        float | None,
        Field(gt=0, le=1_000_000, allow_inf_nan=False),
        BeforeValidator(lambda value: None if value == "" else value),
    ] = None


@router.get("/failed")
def failed(parts: PartsDep, _: OperatorThere, request: Request, span: Span = Span.DAY) -> Response:
    """The largest group first."""
    begin = datetime.now(UTC).replace(microsecond=0) - _LENGTHS[span]
    groups = parts.operating.preview(Selection(filter=Filter(since=begin)), RETRYABLE)
    return parts.pages.page(
        request,
        "failed.html",
        span=span,
        spans=list(Span),
        groups=[(group, _address(group, begin)) for group in groups[:GROUPS]],
        total=sum(group.count for group in groups),
        left_out=len(groups[GROUPS:]),
    )


@router.get("/failed/retry")
def dry_run(
    parts: PartsDep, visitor: OperatorThere, request: Request, wanted: Annotated[RetryForm, Query()]
) -> Response:
    """What would be retried, and what would not; nothing is done yet."""
    selection = wanted.selection(parts, visitor.holder)
    counts = parts.api.operations.retry(selection, operator=visitor.holder.operator, dry_run=True)
    return parts.pages.page(request, "retry.html", counts=counts, form=wanted.query())


@router.post("/failed/retry")
def start(parts: PartsDep, visitor: OperatorThere, wanted: Annotated[StartForm, Form()]) -> Response:
    """Make a job of it. Its page has an address that stays."""
    job = parts.api.jobs.retry(
        wanted.selection(parts, visitor.holder),
        operator=visitor.holder.operator,
        reason=wanted.why.strip() or None,
        rate_per_second=wanted.rate,
    )
    return RedirectResponse(f"/jobs/{job.id}", 303)


def _address(group: SelectionGroup, begin: datetime) -> str:
    """Of the dry run for a group. A group without a provider is retried with those of all providers."""
    conditions = {name: getattr(group, name) for name in ("status", "reason", "provider", "template")}
    given = {name: value for name, value in conditions.items() if value is not None}
    return f"/failed/retry?{urlencode({**given, 'begin': begin.isoformat()})}"
