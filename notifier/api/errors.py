"""The API's errors: RFC 9457 `application/problem+json`, listing every fault at once and never a traceback.

Each fault says where it is: `pointer` is a JSON pointer (RFC 6901) into the body, `parameter` names a parameter of
the URL or a header.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from notifier.domain.errors import (
    Fault,
    InvalidMessage,
    NotFound,
    RenderingFailed,
    ServiceUnavailable,
    StatementCancelled,
    TemplateInvalid,
    WrongSelection,
)

MEDIA_TYPE = "application/problem+json"
#: How soon clients may ask again while the database is unreachable. Seconds.
AWAY_SECONDS = 5

#: Code of a fault → HTTP status, the most important first. All other codes are 422.
_STATUSES: Mapping[str, int] = {
    "technical_error": 500,
    "too_large": 413,
    "attachment_quota": 413,
    "wrong_content_type": 415,
    "wrong_content_encoding": 415,
    "attachment_type": 415,
    "not_json": 400,
    "bad_utf8": 400,
    "channel_not_allowed": 403,
    "lane_not_allowed": 403,
    "template_not_allowed": 403,
    "sender_not_allowed": 403,
    "idempotency_conflict": 409,
    "id_in_use": 409,
}


class Refusal(HTTPException):
    """A request that is refused with a problem document."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.errors = errors


def status_of(faults: Sequence[Fault]) -> int:
    codes = {fault.code for fault in faults}
    return next((status for code, status in _STATUSES.items() if code in codes), 422)


def refusal(faults: Sequence[Fault], value: Any = None) -> Refusal:
    """The refusal for these faults. `value` is the message's JSON."""
    status = status_of(faults)
    return Refusal(status, _DETAILS.get(status, "the request is not valid"), errors_of(faults, value))


_DETAILS = {
    413: "it is too large",
    409: "it was used before, for something else",
    403: "this key or its producer may not send it",
    500: "the service failed on it; it is logged",
}


def errors_of(faults: Iterable[Fault], value: Any = None, below: str = "") -> list[dict[str, str]]:
    """The faults as the API returns them, with their pointers prefixed by `below`."""
    return [
        {"pointer": below + pointer_of(one.field, value), "code": one.code, "problem": one.problem, "fix": one.fix}
        for one in faults
    ]


def pointer_of(field: str, value: Any = None) -> str:
    """The JSON pointer for a fault's field ("context.items.0") in the JSON in which it was found.

    A field joins names with dots, but a name may contain dots itself. `value` shows which names exist.
    """
    pointer, rest = "", field
    while rest:
        name = rest.partition(".")[0]
        if isinstance(value, dict):
            names = [key for key in value if key and (rest == key or rest.startswith(f"{key}."))]
            name = max(names, key=len, default=name)
        pointer += _escaped(name)
        rest = rest[len(name) + 1 :]
        value = _inside(value, name)
    return pointer


def _escaped(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _inside(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
        return value[int(name)]
    return None


def problem(
    status: int, detail: str, errors: Sequence[Mapping[str, str]] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "errors": list(errors)}
    return JSONResponse(body, status, dict(headers or {}), MEDIA_TYPE)


def retry_after(seconds: float) -> dict[str, str]:
    """The header `Retry-After`, in whole seconds, at least one."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def install(app: FastAPI) -> None:
    """Answer every error, ours and FastAPI's, with a problem document."""
    for kind, answer in _ANSWERS.items():
        app.add_exception_handler(kind, _handler(answer))


def _handler(answer: Callable[[Any], JSONResponse]) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def handle(_: Request, error: Exception) -> JSONResponse:
        return answer(error)

    return handle


def _refused(error: HTTPException) -> JSONResponse:
    errors = error.errors if isinstance(error, Refusal) else ()
    return problem(error.status_code, str(error.detail), errors, error.headers)


def _not_valid(error: RequestValidationError) -> JSONResponse:
    errors = [_of_request(detail) for detail in error.errors()]
    return problem(error_status(error), "the request is not valid", errors)


def error_status(error: Exception) -> int:
    """The HTTP status for one of the errors in `ANSWERED`, in the API and on pages."""
    match error:
        case HTTPException():
            return error.status_code
        case RequestValidationError():
            return 400 if any(detail["type"] == "json_invalid" for detail in error.errors()) else 422
        case InvalidMessage():
            return status_of(error.faults)
        case NotFound():
            return 404
        case ServiceUnavailable():
            return 503
        case _:
            return 422


def template_is_broken(error: TemplateInvalid) -> str:
    return f"the template {error.name} is broken: notifier templates check"


_ANSWERS: Mapping[type[Exception], Callable[[Any], JSONResponse]] = {
    HTTPException: _refused,
    RequestValidationError: _not_valid,
    InvalidMessage: lambda error: _refused(refusal(error.faults)),
    NotFound: lambda error: problem(error_status(error), str(error)),
    WrongSelection: lambda error: problem(error_status(error), str(error)),
    RenderingFailed: lambda error: problem(error_status(error), str(error)),
    TemplateInvalid: lambda error: problem(error_status(error), template_is_broken(error)),
    # What the database said stays in the log: it may name hosts and users.
    StatementCancelled: lambda _: _away(
        "the database took too long, and nothing was done; ask for less, for example a shorter time"
    ),
    ServiceUnavailable: lambda _: _away("the record cannot be used now; nothing was done; try again"),
}


#: Any other error that a route raises is our own fault.
ANSWERED = tuple(_ANSWERS)


def _away(detail: str) -> JSONResponse:
    return problem(503, detail, headers=retry_after(AWAY_SECONDS))


def _of_request(detail: Mapping[str, Any]) -> dict[str, str]:
    """A fault that FastAPI found. The first part of its `loc` says where in the request it is."""
    where, *path = [str(part) for part in detail["loc"]]
    code, fix = _REQUEST_CODES.get(detail["type"], ("invalid", "See `notifier schema openapi`"))
    if detail["type"] == "contract":
        # Our own rules say what to do.
        code, fix = detail["ctx"]["code"], detail["ctx"]["fix"]
    if code == "not_json":
        path = []
    return {
        **({"pointer": "".join(map(_escaped, path))} if where == "body" else {"parameter": ".".join(path)}),
        "code": code,
        "problem": str(detail["msg"]),
        "fix": fix,
    }


#: Error type for a parameter that is repeated but takes one value.
GIVEN_TWICE = "given_twice"
#: pydantic's error type, or ours → our code, and what to do.
_REQUEST_CODES: Mapping[str, tuple[str, str]] = {
    "json_invalid": ("not_json", "Send one JSON object"),
    "missing": ("missing", "Add it"),
    "extra_forbidden": ("unknown_field", "Remove it"),
    "enum": ("bad_choice", "Use one of them"),
    "string_too_long": ("too_long", "Shorten it"),
    "string_too_short": ("too_short", "Send a longer one"),
    GIVEN_TWICE: ("given_twice", "Give it once"),
}
