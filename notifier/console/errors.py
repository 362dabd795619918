"""Turns errors into pages that say what to do. The rules are those of the API's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from notifier.api.errors import ANSWERED, AWAY_SECONDS, error_status, template_is_broken
from notifier.console.pages import Pages
from notifier.domain.errors import InvalidMessage, ServiceUnavailable, StatementCancelled, TemplateInvalid

#: The errors that the API answers as well.
PAGE_ERRORS = ANSWERED

_TITLES = {
    403: "You may not do this",
    404: "There is no such thing",
    405: "This cannot be opened",
    413: "It is too large",
    422: "Something is wrong with what was asked",
    429: "Too fast",
    500: "Something went wrong here",
    503: "The record cannot be read just now",
}
#: Used in place of HTTP's own phrases.
_PHRASES = {
    "Not Found": "Nothing is at this address. Check it, or begin at the first page.",
    "Method Not Allowed": "This address takes forms only. Open the page that has the form.",
}
_FAILED = "It is not your fault, and it is in the log. Try again; if it stays, tell those who run this service."


class PageFault(NamedTuple):
    #: Name of the form field or URL parameter; "": it is about no single field.
    field: str
    words: str

    def __str__(self) -> str:
        return f"{label(self.field)}: {self.words}" if self.field else self.words


def error_page(pages: Pages, request: Request, error: Exception) -> HTMLResponse:
    status = error_status(error)
    page = plain_page(pages, request, status, [str(fault) for fault in faults_of(error)])
    if status == 503:
        page.headers["Retry-After"] = str(AWAY_SECONDS)
    return page


def failure_page(pages: Pages, request: Request) -> HTMLResponse:
    """The page for a fault of our own."""
    return plain_page(pages, request, 500, [_FAILED])


def plain_page(pages: Pages, request: Request, status: int, lines: Sequence[str]) -> HTMLResponse:
    title = _TITLES.get(status, "That did not work")
    shown = [_PHRASES.get(line, line) for line in lines]
    # A script inserts it into the page that fetched a part of itself, and asks again.
    name = "error_part.html" if "hx-request" in request.headers else "error.html"
    return pages.page(request, name, status, title=title, lines=shown)


def faults_of(error: Exception) -> list[PageFault]:
    """What is wrong, and what to do. Nothing that was sent is repeated."""
    match error:
        case InvalidMessage():
            return [PageFault(fault.field, f"{fault.problem}. {fault.fix}.") for fault in error.faults]
        case RequestValidationError():
            return [PageFault(".".join(map(str, one["loc"][1:])), _in_words(one)) for one in error.errors()]
        case HTTPException():
            return [PageFault("", str(error.detail))]
        case StatementCancelled():
            words = "The database took too long, and nothing was done. Ask for less, a shorter time say."
        case ServiceUnavailable():
            words = "Nothing was done. Try again in a moment; if it stays, look at the database."
        case TemplateInvalid():
            words = template_is_broken(error)
        case _:
            words = str(error)
    return [PageFault("", words)]


#: Fields whose label on the pages differs from their name.
_LABELS = {
    "address": "Address or number",
    "begin": "Accepted since",
    "hours": "Hours",
    "rate": "Per second",
    "recipient": "Address or number",
    "scopes": "What it may do",
    "since": "From day",
    "to": "Address or number",
    "typed": "Search",
    "until": "To day",
    "why": "Why",
}


def label(field: str) -> str:
    return _LABELS.get(field, field.replace("_", " ").capitalize())


#: pydantic's error type → the page's text.
_WORDS = {
    "missing": "fill it in.",
    "date_from_datetime_parsing": "this is no day. Write it as 2026-11-30.",
    "date_parsing": "this is no day. Write it as 2026-11-30.",
    "date_from_datetime_inexact": "this is no day. Write it as 2026-11-30.",
    "string_too_long": "it is too long. Write at most {max_length} characters.",
    "string_pattern_mismatch": "it is damaged. Begin again at the page before.",
    "greater_than": "it is too small. Give more than {gt:g}.",
    "greater_than_equal": "it is too small. Give at least {ge:g}.",
    "less_than_equal": "it is too large. Give at most {le:g}.",
    "float_parsing": "this is no number.",
    "int_parsing": "this is no whole number.",
    "finite_number": "this is no number.",
    "enum": "choose one of {expected}.",
    "literal_error": "choose one of {expected}.",
}


def _in_words(fault: Mapping[str, Any]) -> str:
    given = fault.get("ctx", {})
    if fault["type"] == "value_error":
        return f"{given['error']}."
    words = _WORDS.get(fault["type"])
    return words.format(**given) if words else f"{fault['msg']}."
