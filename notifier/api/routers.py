"""Makes the groups of routes, and adds them to an application."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from notifier.api import errors
from notifier.api.auth import KeyedRoute

#: Status → when it is returned.
_REFUSALS = {
    400: "The body is not JSON.",
    401: "No valid key.",
    403: "The key does not allow it.",
    404: "It does not exist, or belongs to another producer.",
    408: "The body did not arrive in time.",
    409: "It conflicts with an earlier message or with the notification's status.",
    413: "The body is too large.",
    415: "The type of the body is not accepted.",
    422: "Something is wrong with the request; `errors` says what.",
    429: "Too fast for this key; come back after `Retry-After` seconds.",
    500: "The service failed on this request.",
    503: "The database is away; try again after `Retry-After` seconds.",
}
#: Statuses that any route with a key may return.
_ALWAYS = (401, 403, 408, 422, 429, 500, 503)


def keyed_router(tag: str, *refusals: int) -> APIRouter:
    """A group of routes that need a key. `refusals`: statuses that they may return in addition to `_ALWAYS`."""
    return open_router(tag, *_ALWAYS, *refusals, route_class=KeyedRoute)


def open_router(tag: str, *refusals: int, route_class: type[APIRoute] = APIRoute) -> APIRouter:
    """A group of routes that need no key."""
    return APIRouter(
        tags=[tag],
        route_class=route_class,
        responses=_responses(refusals),
        # Generated clients use these names.
        generate_unique_id_function=lambda route: route.name,
    )


def add_routes(app: FastAPI, router: APIRouter) -> None:
    """Add the routes as they are. `include_router` would build each route again for every application at its first
    request, which takes that request a tenth of a second or two."""
    app.router.routes.extend(router.routes)


def _responses(statuses: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    content = {errors.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted(statuses):
        found[status] = {"description": _REFUSALS[status], "content": content}
        if status in (429, 503):
            found[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    found.get(401, {})["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return found
