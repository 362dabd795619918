"""The first page: whether the service works, what waits, what is broken, and who is affected."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, assert_never

from fastapi import APIRouter, Form, Request, Response

from notifier.console.forms import ReasonedForm, TimeSpan
from notifier.console.parts import ConsoleParts, PartsDep
from notifier.console.session import OperatorThere, PageRoute, ReaderThere
from notifier.domain.statuses import Status
from notifier.operations.api_keys import Scope
from notifier.operations.explanations import resumed_in_words
from notifier.operations.failed_lately import failed_lately
from notifier.store.metrics import GaugeRepository

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/")
def health(parts: PartsDep, visitor: ReaderThere, request: Request) -> Response:
    """Show the first page. For a producer's key, which sees only its own notifications, that is the search."""
    if not visitor.holder.may(Scope.OPERATE):
        return parts.pages.page(request, "welcome.html")
    return parts.pages.page(request, "health.html", **_state(parts))


@router.get("/health/now")
def health_now(parts: PartsDep, _: OperatorThere, request: Request) -> Response:
    """The part of the page that is fetched periodically."""
    return parts.pages.page(request, "health_now.html", **_state(parts))


#: Length of one point of a chart.
_STEPS = {
    TimeSpan.HOUR: timedelta(minutes=1),
    TimeSpan.DAY: timedelta(minutes=15),
    TimeSpan.WEEK: timedelta(hours=1),
}


@router.get("/health/rates")
def rates(parts: PartsDep, _: OperatorThere, span: TimeSpan = TimeSpan.HOUR) -> dict[str, list[Any]]:
    """Data for the charts: a list for each series, all of equal length. Times are Unix seconds, rates are per
    minute."""
    points = parts.services.rate_history.points(span.length, step=_STEPS[span])
    return {
        "time": [point.begins_at.timestamp() for point in points],
        "accepted": [point.accepted for point in points],
        "sent": [point.sent for point in points],
        "p50": [point.p50 for point in points],
        "p95": [point.p95 for point in points],
        "waiting": [point.waiting for point in points],
    }


def _state(parts: ConsoleParts) -> dict[str, Any]:
    services, api = parts.services, parts.api
    return {
        "done": None,
        "spans": list(TimeSpan),
        "gauges": GaugeRepository(services.engine).read(),
        "providers": api.providers.providers(),
        "circuits": api.providers.open_circuits(),
        "stuck": api.operations.stuck(ids=3),
        "stuck_callbacks": api.callbacks.stuck(),
        "steps": services.upkeep.schedule(services.settings.timezone),
        "held": services.held.stuck(),
        "failed": failed_lately(services.minute_counts),
    }


class ProviderAct(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"


@router.get("/providers/{provider}/{act}")
def ask(parts: PartsDep, _: OperatorThere, request: Request, provider: str, act: ProviderAct) -> Response:
    """Show what the act would mean, before it is done."""
    reach = parts.api.providers.reach(provider)
    found = GaugeRepository(parts.services.engine).read().waiting
    waiting = sum(
        one.count
        for one in found
        if one.channel == reach.channel and one.status in (Status.QUEUED, Status.RETRYING)
    )
    return parts.pages.page(request, "provider_act.html", provider=provider, act=act, reach=reach, waiting=waiting)


@router.post("/providers/{provider}/{act}")
def act(
    parts: PartsDep,
    visitor: OperatorThere,
    request: Request,
    provider: str,
    act: ProviderAct,
    form: Annotated[ReasonedForm, Form()],
) -> Response:
    """Do it. Workers follow within a second or two."""
    operator = visitor.holder.operator
    match act:
        case ProviderAct.PAUSE:
            parts.api.providers.pause(provider, operator=operator, reason=form.why)
            said = f"{provider} is paused: what only it can send waits."
        case ProviderAct.RESUME:
            found = parts.api.providers.resume(provider, operator=operator, reason=form.why)
            said = resumed_in_words(provider, found.count, found.within_seconds)
        case _:
            assert_never(act)
    return parts.pages.page(request, "health.html", **{**_state(parts), "done": {"lines": [said]}})
