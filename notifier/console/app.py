"""Adds the console to the API's application."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

from notifier.api.dependencies import ApiServices
from notifier.api.routers import add_routes
from notifier.bootstrap import Services
from notifier.console.answers import ProblemPages
from notifier.console.pages import STATIC
from notifier.console.parts import make_parts
from notifier.console.routes import (
    dead_letters,
    failed,
    health,
    jobs,
    keys,
    notifications,
    oidc,
    operator_log,
    recurring,
    rejected,
    schedules,
    search,
    session,
    suppressions,
    templates,
    unknown,
)


def add_console(app: FastAPI, services: Services, api: ApiServices) -> None:
    """Add the console at `/`, beside the API's routes. Its pages are not in the OpenAPI document."""
    parts = app.state.console = make_parts(services, api)
    app.add_middleware(ProblemPages, parts=parts, api_routes=tuple(app.routes))
    for part in (
        session,
        oidc,
        health,
        search,
        notifications,
        rejected,
        dead_letters,
        unknown,
        suppressions,
        keys,
        operator_log,
        recurring,
        schedules,
        templates,
        failed,
        jobs,
    ):
        add_routes(app, part.router)
    # Of 635 kB of styles an eighth is sent, once to each browser.
    app.mount("/static", GZipMiddleware(_Assets(directory=STATIC), compresslevel=6))


class _Assets(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        # `asset` changes the URL when the file changes.
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response
