"""For load balancers and monitoring. No key is needed: there are counts, and nothing about a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import generate_latest
from pydantic import BaseModel

from notifier.api.dependencies import GaugesDep, ReadinessDep
from notifier.api.key_shares import for_monitoring
from notifier.api.readiness import Ready
from notifier.store.metrics import Gauges
from notifier.telemetry.metrics import REGISTRY

router = APIRouter(tags=["watch"])


class HealthView(BaseModel):
    """The process answers."""

    status: str


@router.get("/healthz", summary="The process is alive")
async def healthz() -> HealthView:
    """Asks nobody: a restart would not bring a database back."""
    return HealthView(status="ok")


@router.get("/readyz", summary="Requests are accepted", responses={503: {"model": Ready}})
async def readyz(readiness: ReadinessDep, response: Response) -> Ready:
    """503 while the database cannot be used, or has not the tables of this version."""
    state = await for_monitoring(readiness.get)
    if not state.is_ready:
        response.status_code = 503
    return state


@router.get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)
async def metrics(gauges: GaugesDep) -> PlainTextResponse:
    """Gauges, read from the record: every process answers the same, so ask one of them."""
    text = "".join(f"{line}\n" for line in lines(await for_monitoring(gauges.get)))
    text += generate_latest(REGISTRY).decode()
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def lines(gauges: Gauges) -> Iterator[str]:
    """The text format (https://prometheus.io/docs/instrumenting/exposition_formats/)."""
    waiting = [
        (f'channel="{one.channel}",lane="{one.lane}",status="{one.status}"', one.count) for one in gauges.waiting
    ]
    calls = [(f'provider="{one.provider}",outcome="{one.outcome}"', one.count) for one in gauges.calls]
    yield from _gauge("notifier_notifications_waiting", "Notifications that have not ended.", waiting)
    yield from _gauge("notifier_due", "Notifications that the sweep should have seen.", [("", gauges.due)])
    oldest = [("", round(gauges.oldest_due_seconds, 3))]
    yield from _gauge("notifier_oldest_due_seconds", "How long the oldest of them has waited for it.", oldest)
    yield from _gauge("notifier_provider_calls_last_hour", "Calls to providers within the last hour.", calls)
    yield from _gauge(
        "notifier_rejected_last_hour", "Messages rejected within the last hour.", [("", gauges.rejected)]
    )
    yield from _callbacks(gauges)


def _callbacks(gauges: Gauges) -> Iterator[str]:
    def by_producer(name: str) -> list[tuple[str, float]]:
        return [(f'producer="{one.producer}"', getattr(one, name)) for one in gauges.callbacks]

    yield from _gauge("notifier_callbacks_waiting", "Callbacks that are to be made.", by_producer("waiting"))
    yield from _gauge("notifier_callbacks_parked", "Callbacks that were given up.", by_producer("parked"))
    suspended = by_producer("suspended_endpoints")
    yield from _gauge("notifier_callback_endpoints_suspended", "Endpoints that failed for days.", suspended)
    delivered, failed = by_producer("delivered"), by_producer("failed")
    yield from _gauge("notifier_callbacks_delivered_total", "Callbacks made, ever.", delivered, "counter")
    yield from _gauge("notifier_callback_calls_failed_total", "Calls that failed, ever.", failed, "counter")


def _gauge(name: str, text: str, values: Iterable[tuple[str, float]], kind: str = "gauge") -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"
