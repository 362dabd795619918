"""Retry and cancel. Every action leaves an operator record with the name of the key."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from notifier.api.auth import KeyedRoute, Operator, SenderOrOperator
from notifier.api.dependencies import AtDesk
from notifier.api.errors import Refusal
from notifier.api.routes.search import story_for
from notifier.api.schemas import Done, RetryRequest, Why
from notifier.domain.statuses import Status
from notifier.operations import ActionResult, Selection

router = APIRouter(tags=["act"], route_class=KeyedRoute)


@router.post("/v1/notifications/retry", summary="Retry many")
def retry_many(desk: AtDesk, holder: Operator, wanted: RetryRequest) -> ActionResult:
    """Set notifications going again that have ended: all that the filter finds, of status `failed` unless it names
    another. If it is broken off, ask again: it goes on."""
    conditions = wanted.filter
    if conditions.status is None and conditions.model_dump(exclude_none=True):
        conditions = conditions.model_copy(update={"status": Status.FAILED})
    return desk.operations.retry(
        Selection(filter=conditions.filter(None)),
        operator=holder.operator,
        reason=wanted.reason,
        rate_per_second=wanted.rate_per_second,
        dry_run=wanted.dry_run,
    )


@router.post("/v1/notifications/{notification:uuid}/retry", summary="Retry one")
def retry_one(desk: AtDesk, holder: Operator, notification: UUID, why: Why | None = None) -> Done:
    """Set a notification going again that has ended: failed, expired, undelivered or suppressed."""
    desk.audit.story(notification)
    reason = why.reason if why else None
    return _done(
        notification, desk.operations.retry(Selection((notification,)), operator=holder.operator, reason=reason)
    )


@router.post("/v1/notifications/{notification:uuid}/cancel", summary="Cancel one")
def cancel_one(desk: AtDesk, holder: SenderOrOperator, notification: UUID, why: Why | None = None) -> Done:
    """Stop a notification that is not sent yet. Whoever sent it may."""
    story_for(desk.audit, holder, notification)
    reason = why.reason if why else None
    return _done(
        notification, desk.operations.cancel(Selection((notification,)), operator=holder.operator, reason=reason)
    )


def _done(notification: UUID, result: ActionResult) -> Done:
    """The answer to an action on one notification.

    Raises:
        Refusal: 409, if it was left alone.
    """
    if not result.changed:
        raise Refusal(409, result.skipped[0].why if result.skipped else "it changed meanwhile, try again")
    return Done(id=notification, record_id=result.record_id)
