"""A form with something wrong in it: its page once more, with what was typed and what is wrong beside each field.

The page of a form is the nearest one above its address: `/keys` of `/keys/<id>/rotate`, if the key has no page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from fastapi import Request, Response
from starlette.datastructures import FormData
from starlette.types import Message

from notifier.api.errors import error_status
from notifier.console.errors import PageFault, faults_of

#: Of the visitor, not of the form.
FORM_TOKEN = "form_token"  # noqa: S105 - a name
#: Of the request; what routes have added is of the form's own.
_KEPT = ("type", "asgi", "http_version", "scheme", "server", "client", "headers", "root_path")


@dataclass(frozen=True, slots=True)
class FormAgain:
    faults: Sequence[PageFault]
    #: Name of a field → what was typed there.
    typed: Mapping[str, Sequence[str]] = field(default_factory=dict)


async def form_again(request: Request, error: Exception) -> Response | None:
    """None: the error is not about the form, or the form is on no page that can be shown."""
    is_ours = request.method == "POST" and getattr(request.state, "visitor", None) is not None
    if not is_ours or error_status(error) != 422 or "hx-request" in request.headers:
        return None
    form = await request.form()
    typed = {name: [str(value) for value in form.getlist(name)] for name in form if name != FORM_TOKEN}
    again = FormAgain(faults_of(error), typed)
    for path in _pages_above(request.url.path):
        # A page that the form is sent back to is about what the form says.
        query = _query(form) if path == request.url.path else ""
        page = await _page(request, path, query, again)
        if page.status_code == 200:
            page.status_code = 422
            return page
    return None


def _pages_above(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def _query(form: FormData) -> str:
    return urlencode([(name, value) for name, value in form.multi_items() if name != FORM_TOKEN])


async def _page(request: Request, path: str, query: str, again: FormAgain) -> Response:
    """What a GET answers."""
    kept = {name: request.scope[name] for name in _KEPT if name in request.scope}
    state = {**request.scope["state"], "again": again}
    scope = {**kept, "method": "GET", "path": path, "query_string": query.encode(), "state": state}
    start: Message = {}
    body = b""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal start, body
        start = start or message
        body += message.get("body", b"")

    await request.app(scope, receive, send)
    page = Response(body, start["status"])
    page.raw_headers = start["headers"]
    return page
