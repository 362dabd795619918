"""The page of failures: by cause, what a retry of some would do, and the start of a retry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field

from notifier.console.forms import Empty, GivenReason, TimeSpan
from notifier.console.parts import PartsDep
from notifier.console.routes.search import SearchForm
from notifier.console.session import OperatorThere, PageRoute
from notifier.domain.statuses import Status
from notifier.domain.times import Instant
from notifier.operations import RETRYABLE, Selection
from notifier.operations.api_keys import Holder
from notifier.store.failures import COUNTED, FailureGroup, FailureRepository

router = APIRouter(route_class=PageRoute, include_in_schema=False)

#: Causes on the page; smaller ones can be found by search.
CAUSES = 100


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Notifications that ended for the same reason at the same provider."""

    status: str
    reason: str | None
    provider: str | None
    count: int
    #: URL of its dry run.
    address: str
    #: URL of the list of its notifications.
    listed: str
    #: Name, count and URL of each template, the largest count first.
    templates: list[tuple[str, int, str]]


class RetryForm(SearchForm):
    """Which notifications to retry: those of a search, or from a moment on."""

    begin: Annotated[Instant | None, Empty] = None
    status: Status = Status.FAILED

    def selection(self, parts: PartsDep, holder: Holder) -> Selection:
        """The selection. Raises `WrongSelection`."""
        return Selection(filter=self.filter(holder, parts.services.settings.timezone))

    def _places(self, zone: ZoneInfo) -> dict[str, Any]:
        return super()._places(zone) | ({} if self.begin is None else {"since": self.begin})


class StartForm(RetryForm):
    why: GivenReason = ""
    #: Retries per second; None: all at once.
    rate: Annotated[Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None, Empty] = None


@router.get("/failed")
def failed(parts: PartsDep, _: OperatorThere, request: Request, span: TimeSpan = TimeSpan.DAY) -> Response:
    """List the causes, the most common first."""
    begin = datetime.now(UTC).replace(microsecond=0) - span.length
    found = FailureRepository(parts.services.engine).newest(RETRYABLE, begin)
    causes = _causes(found, begin, parts.services.settings.timezone)
    return parts.pages.page(
        request,
        "failed.html",
        span=span,
        spans=list(TimeSpan),
        causes=causes[:CAUSES],
        total=sum(cause.count for cause in causes),
        counted=COUNTED,
        left_out=len(causes[CAUSES:]),
    )


@router.get("/failed/retry")
def dry_run(
    parts: PartsDep, visitor: OperatorThere, request: Request, wanted: Annotated[RetryForm, Query()]
) -> Response:
    """Show what would be retried and what would not. Changes nothing."""
    selection = wanted.selection(parts, visitor.holder)
    counts = parts.api.operations.retry(selection, operator=visitor.holder.operator, dry_run=True)
    return parts.pages.page(request, "retry.html", counts=counts, form=wanted.query())


@router.post("/failed/retry")
def start(parts: PartsDep, visitor: OperatorThere, wanted: Annotated[StartForm, Form()]) -> Response:
    """Start a job. Its page has a permanent URL."""
    job = parts.api.jobs.retry(
        wanted.selection(parts, visitor.holder),
        operator=visitor.holder.operator,
        reason=wanted.why,
        rate_per_second=wanted.rate,
    )
    return RedirectResponse(f"/jobs/{job.id}", 303)


def _causes(groups: Sequence[FailureGroup], begin: datetime, zone: ZoneInfo) -> list[FailureCause]:
    found: defaultdict[tuple[str, str | None, str | None], list[FailureGroup]] = defaultdict(list)
    for group in groups:
        found[group.status, group.reason, group.provider].append(group)
    causes = [
        FailureCause(
            *cause,
            sum(group.count for group in members),
            _address(*cause, begin),
            _listed(*cause, begin.astimezone(zone).date()),
            [(group.template, group.count, _address(*cause, begin, template=group.template)) for group in members],
        )
        for cause, members in found.items()
    ]
    return sorted(causes, key=lambda cause: -cause.count)


def _address(status: str, reason: str | None, provider: str | None, begin: datetime, **more: str) -> str:
    """The URL of the dry run. A cause without a provider is retried together with those of all providers; the dry
    run shows that."""
    given = {"status": status, "reason": reason, "provider": provider, "begin": begin.isoformat(), **more}
    return f"/failed/retry?{_query(given)}"


def _listed(status: str, reason: str | None, provider: str | None, since: date) -> str:
    """The URL of the search. Searches are by whole days, so it begins with the first day."""
    given = {"status": status, "reason": reason, "provider": provider, "since": since.isoformat()}
    return f"/search?{_query(given)}"


def _query(given: Mapping[str, str | None]) -> str:
    return urlencode({name: value for name, value in given.items() if value is not None})
