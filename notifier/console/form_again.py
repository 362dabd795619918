"""Shows a rejected form again: its page, with what was typed, and what is wrong beside each field.

The form's page is the nearest page above its URL: `/keys` for `/keys/<id>/rotate`, if the key has no page.
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

#: Belongs to the visitor, not to the form.
FORM_TOKEN = "form_token"  # noqa: S105 - a name
#: What is copied from the request; routes may have added more, which belongs to the form.
_KEPT = ("type", "asgi", "http_version", "scheme", "server", "client", "headers", "root_path")


@dataclass(frozen=True, slots=True)
class FormAgain:
    faults: Sequence[PageFault]
    #: Field name → what was typed there.
    typed: Mapping[str, Sequence[str]] = field(default_factory=dict)


async def form_again(request: Request, error: Exception) -> Response | None:
    """Return the page with the form; None: the error is not about the form, or no page that can be shown has the
    form."""
    is_ours = request.method == "POST" and getattr(request.state, "visitor", None) is not None
    if not is_ours or error_status(error) != 422 or "hx-request" in request.headers:
        return None
    form = await request.form()
    typed = {name: [str(value) for value in form.getlist(name)] for name in form if name != FORM_TOKEN}
    again = FormAgain(faults_of(error), typed)
    for path in _pages_above(request.url.path):
        # If the form is sent to the page's own URL, the form's fields say what the page shows.
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
    """The answer to a GET of this page."""
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
