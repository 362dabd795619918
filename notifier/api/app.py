"""Builds the FastAPI application: every route, problem documents for every error, and the OpenAPI document."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.types import Lifespan

from notifier.api import errors
from notifier.api.dependencies import ApiServices
from notifier.api.middleware import Shield
from notifier.api.routers import add_routes
from notifier.api.routes import (
    attachments,
    callbacks,
    health,
    jobs,
    notifications,
    recurring,
    search,
    suppressions,
    templates,
    unsubscribe,
    webhooks,
)
from notifier.api.schemas import Problem
from notifier.api.timeouts import ClientTimeouts
from notifier.domain.message import Envelope, Message
from notifier.domain.statuses import Lane
from notifier.telemetry.version import installed_version

_ABOUT = """Send mail and SMS, and find out what became of them.

Every request except those of monitoring needs a key: `Authorization: Bearer ntf_live_…`. With a key that begins
with `ntf_test_` nothing is sent. Errors are `application/problem+json` and list everything that is wrong at once.
"""


def make_app(
    services: ApiServices | None = None,
    lifespan: Lifespan[FastAPI] | None = None,
    timeouts: ClientTimeouts = ClientTimeouts(),  # noqa: B008 - it cannot change
) -> FastAPI:
    """Build the application. Without `services` it can only describe itself."""
    app = FastAPI(
        title="notifier",
        version=installed_version() or "0",
        description=_ABOUT,
        lifespan=lifespan,
        # A redirect would repeat whatever host name the request had.
        redirect_slashes=False,
        # FastAPI's pages load their scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.services = services
    errors.install(app)
    _add_routes(app, services)
    limits = {attachments.PATH: services.attachments.max_bytes} if services else {}
    app.add_middleware(Shield, limits=limits, timeouts=timeouts)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        # Serialized once: anybody may ask for it without a key, and FastAPI would serialize it for each request.
        if not hasattr(app.state, "openapi"):
            app.state.openapi = json.dumps(app.openapi(), ensure_ascii=False).encode()
        return Response(app.state.openapi, media_type="application/json")

    return app


def _add_routes(app: FastAPI, services: ApiServices | None) -> None:
    for router in (
        notifications.router,
        attachments.router,
        notifications.actions,
        search.router,
        search.one_status,
        templates.router,
        recurring.router,
        suppressions.router,
        callbacks.router,
        jobs.router,
        health.router,
    ):
        add_routes(app, router)
    if services is not None:
        add_routes(app, webhooks.make_router(services.receipts))
    add_routes(app, unsubscribe.router)


def document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's OpenAPI document, with the contract's schemas in it."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = found["components"]["schemas"]
        schemas |= _contract() | _schemas(Problem)
        # FastAPI's own form of errors, which no route returns.
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        app.openapi_schema = found
    return app.openapi_schema


def _contract() -> dict[str, Any]:
    """The schemas of message and batch over HTTP: without the producer, which the key tells, and with no channel
    known yet."""
    schemas = _schemas(Message) | _schemas(Envelope)
    message, batch = schemas.pop("Message"), schemas.pop("Envelope")
    names = set(message["required"]) - {"producer"} | {"channel"}
    message |= {"title": "Notification", "required": [name for name in message["properties"] if name in names]}
    message["properties"]["producer"] |= {"description": "Known from the key; if given, it must agree with it."}
    message["properties"]["channel"] = {"$ref": "#/components/schemas/Channel"}
    message["properties"]["lane"] |= {"description": f"Default: {Lane.NORMAL}."}
    batch["title"] = "Batch"
    return {**schemas, "Notification": message, "Batch": batch}


def _schemas(model: Any) -> dict[str, Any]:
    _, found = models_json_schema([(model, "validation")], ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = found["$defs"]
    return schemas
