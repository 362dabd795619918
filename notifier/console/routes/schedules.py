"""The page of daily work: when each step last succeeded and will run next, and a manual run."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response

from notifier.console.forms import ActForm
from notifier.console.parts import ConsoleParts, PartsDep
from notifier.console.session import OperatorThere, PageRoute

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/schedules")
def schedules(parts: PartsDep, _: OperatorThere, request: Request) -> Response:
    return _page(parts, request)


@router.get("/schedules/now")
def schedules_now(parts: PartsDep, _: OperatorThere, request: Request) -> Response:
    """The part of the page that is fetched periodically."""
    return parts.pages.page(request, "schedules_now.html", **_state(parts))


@router.post("/schedules/{step}/run")
def run(
    parts: PartsDep, visitor: OperatorThere, request: Request, step: str, form: Annotated[ActForm, Form()]
) -> Response:
    """Ask a worker to run the step, because it may take minutes."""
    parts.services.upkeep.ask(step, operator=visitor.holder.operator, reason=form.why)
    said = f"A worker runs {step.replace('_', ' ')} within a minute, if Beat and a worker are there."
    return _page(parts, request, done={"lines": [said], "form": form})


def _page(parts: ConsoleParts, request: Request, **more: Any) -> Response:
    return parts.pages.page(request, "schedules.html", **{"done": None, **_state(parts), **more})


def _state(parts: ConsoleParts) -> dict[str, Any]:
    services = parts.services
    return {"steps": services.upkeep.schedule(services.settings.timezone)}
