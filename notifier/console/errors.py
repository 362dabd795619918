"""What goes wrong, as a page that says what to do. The rules are those of the API's errors."""

from __future__ import annotations

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from notifier.api.errors import ANSWERED, AWAY_SECONDS, error_status, template_is_broken
from notifier.console.pages import Pages
from notifier.domain.errors import InvalidMessage, ServiceUnavailable, StatementCancelled, TemplateInvalid

#: Those that the API answers, too.
PAGE_ERRORS = ANSWERED

_TITLES = {
    403: "You may not do this",
    404: "There is no such thing",
    422: "Something is wrong with what was asked",
    429: "Too fast",
    503: "The record cannot be read just now",
}


def error_page(pages: Pages, request: Request, error: Exception) -> HTMLResponse:
    status, lines = error_status(error), in_words(error)
    title = _TITLES.get(status, "That did not work")
    page = pages.page(request, "error.html", status, title=title, lines=lines)
    if status == 503:
        page.headers["Retry-After"] = str(AWAY_SECONDS)
    return page


def in_words(error: Exception) -> list[str]:
    """What is wrong, with what to do, a line each. Nothing of what was sent is in it."""
    match error:
        case HTTPException():
            return [str(error.detail)]
        case InvalidMessage():
            return [f"{fault.field}: {fault.problem}. {fault.fix}." for fault in error.faults]
        case RequestValidationError():
            return [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        case StatementCancelled():
            return ["The database took too long, and nothing was done. Ask for less, a shorter time say."]
        case ServiceUnavailable():
            return ["Nothing was done. Try again in a moment; if it stays, look at the database."]
        case TemplateInvalid():
            return [template_is_broken(error)]
        case _:
            return [str(error)]
