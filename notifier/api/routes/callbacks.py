"""Routes for status callbacks: those that were delivered to producers, and those that could not be."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from notifier.api.auth import Operator
from notifier.api.dependencies import CallbacksDep
from notifier.api.routers import keyed_router
from notifier.api.schemas import ListPage, PageQuery, Words, read_filter
from notifier.domain.statuses import CallbackFailure, CallbackState, Status
from notifier.domain.times import Instant
from notifier.operations.callbacks import CallbackReplay, CallbackStory
from notifier.store.callbacks import CallbackFilter, CallbackView, EndpointView

router = keyed_router("callbacks", 400, 404, 413)


class CallbackConditions(BaseModel):
    """Which callbacks. All conditions must match."""

    model_config = ConfigDict(extra="forbid")

    producer: Words | None = None
    endpoint: Words | None = None
    notification: UUID | None = None
    failure: CallbackFailure | None = None
    status: Status | None = None
    since: Annotated[Instant | None, Field(description="The status changed at or after this time.")] = None
    until: Annotated[Instant | None, Field(description="The status changed before this time.")] = None


class CallbackSearch(PageQuery, CallbackConditions):
    """Which callbacks, and which page."""

    state: CallbackState | None = None


class CallbackPage(ListPage[CallbackView]):
    """Newest first."""


class ReplayRequest(BaseModel):
    """Which callbacks to replay: ids, or a filter."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[UUID], Field(max_length=1000)] = Field(default_factory=list)
    filter: CallbackConditions | None = None
    dry_run: StrictBool = False
    reason: Annotated[str | None, Field(max_length=500, description="Why; kept in the record.")] = None


class ResumeRequest(BaseModel):
    """Which endpoint to call again."""

    model_config = ConfigDict(extra="forbid")

    endpoint: Words
    reason: Annotated[str | None, Field(max_length=500, description="Why; kept in the record.")] = None


@router.get("/v1/callbacks", summary="Callbacks")
def callbacks(callbacks: CallbacksDep, _: Operator, wanted: Annotated[CallbackSearch, Query()]) -> CallbackPage:
    """Callbacks that were delivered, that wait or that are parked; newest first."""
    page = callbacks.search(read_filter(CallbackFilter, wanted), limit=wanted.limit, before=wanted.before)
    return CallbackPage(items=page, next=wanted.next([one.id for one in page]))


@router.get("/v1/callbacks/{callback:uuid}", summary="One callback")
def callback_story(callbacks: CallbacksDep, _: Operator, callback: UUID) -> CallbackStory:
    """One callback, with every attempt to deliver it."""
    return callbacks.show(callback)


@router.post("/v1/callbacks/replay", summary="Replay callbacks")
def replay_callbacks(callbacks: CallbacksDep, holder: Operator, wanted: ReplayRequest) -> CallbackReplay:
    """Try parked callbacks for another 24 hours. By id, you can also replay a delivered callback."""
    conditions = read_filter(CallbackFilter, wanted.filter) if wanted.filter else None
    return callbacks.replay(
        conditions, wanted.ids, operator=holder.operator, reason=wanted.reason, dry_run=wanted.dry_run
    )


@router.get("/v1/callback-endpoints", summary="Endpoints of callbacks")
def callback_endpoints(callbacks: CallbacksDep, _: Operator) -> list[EndpointView]:
    """The state of each endpoint: in use, failing, or suspended."""
    return callbacks.endpoints()


@router.post("/v1/callback-endpoints/resume", summary="Resume an endpoint")
def resume_endpoint(callbacks: CallbacksDep, holder: Operator, wanted: ResumeRequest) -> CallbackReplay:
    """Call a suspended endpoint again, with all callbacks that were parked because of the suspension."""
    return callbacks.resume(wanted.endpoint, operator=holder.operator, reason=wanted.reason)
