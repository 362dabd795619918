"""The pages of jobs: a list, and the progress of one, which is also its result."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from notifier.api.schemas import read_cursor, write_cursor
from notifier.console.parts import PartsDep
from notifier.console.session import OperatorThere, PageRoute

router = APIRouter(route_class=PageRoute, include_in_schema=False)

#: Jobs on a page.
PAGE = 50


@router.get("/jobs")
def jobs(
    parts: PartsDep, _: OperatorThere, request: Request, after: Annotated[str | None, Query(max_length=50)] = None
) -> Response:
    found = parts.api.jobs.page(limit=PAGE, before=read_cursor(after))
    following = f"/jobs?after={write_cursor(found[-1].id)}" if len(found) == PAGE else None
    return parts.pages.page(request, "jobs.html", jobs=found, following=following)


@router.get("/jobs/{job:uuid}")
def job(parts: PartsDep, _: OperatorThere, request: Request, job: UUID) -> Response:
    return parts.pages.page(request, "job.html", job=parts.api.jobs.find(job))


@router.get("/jobs/{job:uuid}/now")
def job_now(parts: PartsDep, _: OperatorThere, request: Request, job: UUID) -> Response:
    """The part of a running job's page that is fetched periodically."""
    found = parts.api.jobs.find(job)
    page = parts.pages.page(request, "job_now.html", job=found)
    if found.finished_at is not None:
        # Reloads the whole page, which then no longer asks.
        page.headers["HX-Refresh"] = "true"
    return page


@router.post("/jobs/{job:uuid}/stop")
def stop(
    parts: PartsDep, visitor: OperatorThere, job: UUID, reason: Annotated[str, Form(max_length=500)] = ""
) -> Response:
    parts.api.jobs.stop(job, operator=visitor.holder.operator, reason=reason.strip() or None)
    return RedirectResponse(f"/jobs/{job}", 303)
