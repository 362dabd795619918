"""The page of one notification: what became of it, what happened when, and what can be done."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, assert_never
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response

from notifier.api.auth import check_scope
from notifier.api.routes.search import story_for
from notifier.console.frames import Theme, framed
from notifier.console.outcomes import said_of_one
from notifier.console.parts import ConsoleParts, PartsDep
from notifier.console.session import PageRoute, ReaderThere, SenderOrOperatorThere
from notifier.domain.errors import NotFound, WrongSelection
from notifier.domain.labels import status_in_words
from notifier.domain.statuses import Channel, Status, SuppressionReason
from notifier.feedback.suppressions import address_of
from notifier.operations import Resolution, Selection
from notifier.operations.api_keys import Holder, Scope
from notifier.operations.explanations import arrival_in_words
from notifier.operations.notifications import CANCELLABLE, RETRYABLE
from notifier.operations.rendered_content import DOTS
from notifier.operations.timeline import timeline
from notifier.store.callbacks import CallbackFilter
from notifier.store.search import Story

router = APIRouter(route_class=PageRoute, include_in_schema=False)

#: A notification has at most a dozen statuses to report.
CALLBACKS_SHOWN = 50


class Act(StrEnum):
    """What can be done with one notification."""

    RETRY = "retry"
    CANCEL = "cancel"
    SENT = "sent"  #: the outcome was unknown, and the provider took it
    RESEND = "resend"  #: the outcome was unknown, and the provider did not take it
    SUPPRESS = "suppress"


@router.get("/notifications/{notification:uuid}")
def story(parts: PartsDep, visitor: ReaderThere, request: Request, notification: UUID) -> Response:
    return _page(parts, visitor.holder, request, notification)


@router.get("/notifications/{notification:uuid}/html")
def html(
    parts: PartsDep, visitor: ReaderThere, notification: UUID, theme: Annotated[Theme, Query()] = Theme.LIGHT
) -> Response:
    """Its HTML part, for a frame."""
    story_for(parts.api.audit, visitor.holder, notification)
    rendered = parts.contents.find(notification).rendered
    if rendered is None or rendered.html is None:
        raise NotFound("this notification has no HTML part that can be shown")
    return framed(rendered.html, theme)


@router.post("/notifications/{notification:uuid}/{act}")
def act(
    parts: PartsDep,
    visitor: SenderOrOperatorThere,
    request: Request,
    notification: UUID,
    act: Act,
    reason: Annotated[str, Form(max_length=500)] = "",
    dry_run: Annotated[bool, Form()] = False,
) -> Response:
    """Do it, or count what it would do. The page then shows the result."""
    found = story_for(parts.api.audit, visitor.holder, notification)
    if act not in _acts(visitor.holder, found):
        check_scope(visitor.holder, Scope.OPERATE)
        raise WrongSelection(f"this is not possible now: {status_in_words(found.notification.status)}")
    said = _do(parts, visitor.holder, found, act, reason.strip() or None, dry_run=dry_run)
    return _page(parts, visitor.holder, request, notification, done={"said": said, "act": act, "reason": reason})


def _do(parts: ConsoleParts, holder: Holder, found: Story, act: Act, reason: str | None, *, dry_run: bool) -> str:
    one, operations = Selection(ids=(found.notification.id,)), parts.api.operations
    named: dict[str, Any] = {"operator": holder.operator, "reason": reason, "dry_run": dry_run}
    match act:
        case Act.RETRY:
            return said_of_one(operations.retry(one, **named), "retried")
        case Act.CANCEL:
            return said_of_one(operations.cancel(one, **named), "cancelled")
        case Act.SENT:
            return said_of_one(operations.resolve(one, Resolution.SENT, **named), "recorded as sent")
        case Act.RESEND:
            return said_of_one(operations.resolve(one, Resolution.RESEND, **named), "sent again")
        case Act.SUPPRESS:
            return _suppress(parts, holder, found, reason, dry_run=dry_run)
        case _:
            assert_never(act)


def _suppress(parts: ConsoleParts, holder: Holder, found: Story, reason: str | None, *, dry_run: bool) -> str:
    recipient = address_of(found.notification.recipient)
    if dry_run:
        return "Nothing more would be sent to them, by any template, until somebody lifts it."
    is_new = parts.api.suppressions.add(
        channel=Channel(found.notification.channel),
        address=recipient,
        reason=SuppressionReason.MANUAL,
        source=f"operator:{holder.operator}",
        notification_id=found.notification.id,
        detail=reason,
    )
    return "Nothing more is sent to them." if is_new else "They were suppressed already."


def _page(parts: ConsoleParts, holder: Holder, request: Request, notification: UUID, **more: Any) -> Response:
    found = story_for(parts.api.audit, holder, notification)
    wanted = CallbackFilter(notification=notification)
    return parts.pages.page(
        request,
        "notification.html",
        story=found,
        n=found.notification,
        steps=timeline(found),
        arrival=arrival_in_words(found.notification),
        callbacks=parts.services.callbacks.search(wanted, limit=CALLBACKS_SHOWN),
        acts=_acts(holder, found),
        content=parts.contents.find(notification),
        dots=DOTS,
        **{"done": None, **more},
    )


def _acts(holder: Holder, found: Story) -> list[Act]:
    """What this visitor may do with the notification in its current state."""
    status = Status(found.notification.status) if found.notification.status in set(Status) else None
    is_operator = holder.may(Scope.OPERATE)
    acts: list[Act] = []
    if is_operator and status in RETRYABLE:
        acts.append(Act.RETRY)
    if is_operator and status is Status.UNKNOWN:
        acts += [Act.SENT, Act.RESEND]
    if status in CANCELLABLE and (is_operator or holder.may(Scope.SEND)):
        acts.append(Act.CANCEL)
    if is_operator:
        acts.append(Act.SUPPRESS)
    return acts
