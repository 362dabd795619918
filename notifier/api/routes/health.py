"""Routes for load balancers and monitoring. They need no key: they return counts, and nothing about people."""

from __future__ import annotations

from fastapi import Response
from fastapi.responses import PlainTextResponse
from prometheus_client import generate_latest
from pydantic import BaseModel

from notifier.api.dependencies import BrokerMetricsDep, DrainDep, ReadinessDep, RecordMetricsDep
from notifier.api.key_shares import for_monitoring
from notifier.api.readiness import Ready
from notifier.api.record_metrics import Collected
from notifier.api.routers import open_router
from notifier.telemetry.metrics import REGISTRY

router = open_router("watch", 500, 503)


class HealthView(BaseModel):
    """The process answers."""

    status: str


@router.get("/healthz", summary="The process is alive")
async def healthz() -> HealthView:
    """Does not check the database or the broker: a restart would not bring them back."""
    return HealthView(status="ok")


@router.get("/readyz", summary="Requests are accepted", responses={503: {"model": Ready}})
async def readyz(readiness: ReadinessDep, drain: DrainDep, response: Response) -> Ready:
    """503 while the database cannot be used or lacks the tables of this version, and before the process ends."""
    state = drain.asked(await for_monitoring(readiness.get))
    if not state.is_ready:
        response.status_code = 503
    return state


@router.get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)
async def metrics(record: RecordMetricsDep, broker: BrokerMetricsDep) -> PlainTextResponse:
    """Metrics of this process, the record and the broker. All processes give the same figures for the last two."""
    found = [*await for_monitoring(record.get), *await for_monitoring(broker.get)]
    text = generate_latest(REGISTRY) + generate_latest(Collected(found))
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")
