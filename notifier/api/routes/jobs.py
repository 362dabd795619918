"""Routes for jobs: long actions that workers carry out. `POST /v1/notifications/retry` creates them."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query

from notifier.api.auth import Operator
from notifier.api.dependencies import JobsDep
from notifier.api.errors import Refusal
from notifier.api.routers import keyed_router
from notifier.api.schemas import ListPage, PageQuery, Why
from notifier.domain.errors import WrongSelection
from notifier.store.jobs import JobView

router = keyed_router("act", 400, 404, 409, 413)


class JobList(ListPage[JobView]):
    """Newest first."""


@router.get("/v1/jobs", summary="List jobs")
def list_jobs(jobs: JobsDep, _: Operator, page: Annotated[PageQuery, Query()]) -> JobList:
    """Long actions, newest first, with their progress."""
    found = jobs.page(limit=page.limit, before=page.before)
    return JobList(items=found, next=page.next([one.id for one in found]))


@router.get("/v1/jobs/{job:uuid}", summary="Read one job")
def show_job(jobs: JobsDep, _: Operator, job: UUID) -> JobView:
    """Its progress, or how it ended."""
    return jobs.find(job)


@router.post("/v1/jobs/{job:uuid}/stop", summary="Stop one job")
def stop_job(jobs: JobsDep, holder: Operator, job: UUID, why: Why | None = None) -> JobView:
    """Ask it to stop. It ends after its current page, and keeps what it has done."""
    try:
        return jobs.stop(job, operator=holder.operator, reason=why.reason if why else None)
    except WrongSelection as error:
        raise Refusal(409, str(error)) from None
