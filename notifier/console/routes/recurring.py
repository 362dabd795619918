"""The pages of recurring notifications: due times and runs; pause, resume, run and delete."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, assert_never
from uuid import UUID

from fastapi import APIRouter, Form, Request, Response

from notifier.api.routes.recurring import recurring_for
from notifier.console.forms import ActForm
from notifier.console.parts import ConsoleParts, PartsDep
from notifier.console.session import PageRoute, ReaderThere, SenderOrOperatorThere
from notifier.operations.api_keys import Holder, Scope
from notifier.store.recurring import RecurringView

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class RecurringAct(StrEnum):
    """What can be done with a recurring notification."""

    PAUSE = "pause"
    RESUME = "resume"
    RUN = "run"
    DELETE = "delete"


@router.get("/recurring")
def recurring_notifications(parts: PartsDep, visitor: ReaderThere, request: Request) -> Response:
    return _list(parts, visitor.holder, request)


@router.get("/recurring/{recurring:uuid}")
def recurring_notification(parts: PartsDep, visitor: ReaderThere, request: Request, recurring: UUID) -> Response:
    return _one(parts, visitor.holder, request, recurring)


@router.get("/recurring/{recurring:uuid}/now")
def recurring_now(parts: PartsDep, visitor: ReaderThere, request: Request, recurring: UUID) -> Response:
    """The part of the page that is fetched periodically."""
    return parts.pages.page(request, "recurring_one_now.html", **_story(parts, visitor.holder, recurring))


@router.post("/recurring/{recurring:uuid}/{act}")
def act(
    parts: PartsDep,
    visitor: SenderOrOperatorThere,
    request: Request,
    recurring: UUID,
    act: RecurringAct,
    form: Annotated[ActForm, Form()],
) -> Response:
    view = recurring_for(parts.api.recurring, visitor.holder, recurring)
    said, record = _do(parts, view, act, {"operator": visitor.holder.operator, "reason": form.why})
    done = {"lines": [said], "record": record, "form": form}
    if act is RecurringAct.DELETE:
        return _list(parts, visitor.holder, request, done=done)
    return _one(parts, visitor.holder, request, recurring, done=done)


def _do(parts: ConsoleParts, view: RecurringView, act: RecurringAct, by: dict[str, Any]) -> tuple[str, UUID]:
    """Do it. Returns what to say about it, and the operator record's id."""
    operations = parts.api.recurring
    match act:
        case RecurringAct.PAUSE:
            return "It is paused: nothing is sent until somebody resumes it.", operations.pause(view.id, **by)
        case RecurringAct.RESUME:
            return "It goes on with its next time.", operations.resume(view.id, **by)
        case RecurringAct.RUN:
            return "It is sent within a minute, if Beat and a worker are there.", operations.run(view.id, **by)
        case RecurringAct.DELETE:
            return (
                f"{view.name} and its list are deleted. Messages that it has sent stay on record.",
                operations.remove(view.id, **by),
            )
        case _:
            assert_never(act)


def _list(parts: ConsoleParts, holder: Holder, request: Request, **more: Any) -> Response:
    found = [view for view in parts.api.recurring.views() if holder.sees(view)]
    return parts.pages.page(request, "recurring.html", found=found, **{"done": None, **more})


def _one(parts: ConsoleParts, holder: Holder, request: Request, recurring: UUID, **more: Any) -> Response:
    may_act = holder.may(Scope.OPERATE) or holder.may(Scope.SEND)
    values = {"done": None, "may_act": may_act, **_story(parts, holder, recurring), **more}
    return parts.pages.page(request, "recurring_one.html", **values)


def _story(parts: ConsoleParts, holder: Holder, recurring: UUID) -> dict[str, Any]:
    story = parts.api.recurring.story(recurring_for(parts.api.recurring, holder, recurring))
    return {"one": story.recurring, "times": story.times, "runs": story.runs}
