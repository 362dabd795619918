"""Sign in and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from notifier.console.errors import PAGE_ERRORS, error_page
from notifier.console.pages import Pages
from notifier.console.parts import PartsDep
from notifier.console.session import COOKIE, SIGN_IN, PageRoute, ReaderThere, refuse_other_sites
from notifier.store.console_sessions import LONGEST_HOURS

router = APIRouter()
_inside = APIRouter(route_class=PageRoute)


@router.get(SIGN_IN)
def sign_in_page(parts: PartsDep, request: Request, next: str = "/") -> Response:  # noqa: A002 - of the address
    return _page(parts.pages, request, next)


@router.post(SIGN_IN)
def sign_in(
    parts: PartsDep,
    request: Request,
    key: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002 - of the form
) -> Response:
    try:
        refuse_other_sites(request)
        token = parts.sign_in.with_key(key)
    except PAGE_ERRORS as error:
        return error_page(parts.pages, request, error)
    if token is None:
        return _page(parts.pages, request, next, is_refused=True)
    answer = RedirectResponse(_local(next), 303)
    # Lax: a link in a mail or a chat leads to the page, still signed in; forms of other sites get no cookie.
    answer.set_cookie(
        COOKIE,
        token,
        max_age=LONGEST_HOURS * 3600,
        httponly=True,
        samesite="lax",
        secure=request.headers.get("x-forwarded-proto", request.url.scheme) == "https",
    )
    return answer


@_inside.post("/sign-out")
def sign_out(parts: PartsDep, _: ReaderThere, request: Request) -> Response:
    parts.sign_in.end(request.cookies[COOKIE])
    answer = RedirectResponse(SIGN_IN, 303)
    answer.delete_cookie(COOKIE)
    return answer


router.include_router(_inside)


def _page(pages: Pages, request: Request, target: str, *, is_refused: bool = False) -> Response:
    request.state.visitor = None
    return pages.page(request, "sign_in.html", 403 if is_refused else 200, target=target, is_refused=is_refused)


def _local(target: str) -> str:
    """A page of ours; anything else is the first page."""
    is_ours = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if is_ours else "/"
