"""Pages to sign in and out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from notifier.console.answers import COOKIE, ConsoleRoute
from notifier.console.parts import ConsoleParts, PartsDep
from notifier.console.session import (
    OIDC,
    SIGN_IN,
    PageRoute,
    ReaderThere,
    refuse_other_sites,
    set_cookie,
)
from notifier.domain.errors import SignInFailed
from notifier.store.console_sessions import LONGEST_HOURS

router = APIRouter(route_class=ConsoleRoute, include_in_schema=False)
_inside = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(SIGN_IN)
def sign_in_page(parts: PartsDep, request: Request, next: str = "/") -> Response:  # noqa: A002 - of the address
    return _page(parts, request, next)


@router.post(SIGN_IN)
def sign_in(
    parts: PartsDep,
    request: Request,
    key: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002 - of the form
) -> Response:
    refuse_other_sites(request)
    token = parts.sign_in.with_key(key, instead_of=request.cookies.get(COOKIE, ""))
    if token is None:
        return _page(parts, request, next, 403, is_refused=True)
    return begin_session(request, token, next)


def begin_session(request: Request, token: str, target: str) -> Response:
    """Redirect to the page that was asked for, signed in."""
    answer = RedirectResponse(local_page(target), 303)
    set_cookie(answer, request, COOKIE, token, LONGEST_HOURS * 3600)
    return answer


def sign_in_again(parts: ConsoleParts, request: Request, failure: SignInFailed, target: str) -> Response:
    """Show the sign-in page, with what went wrong at the identity provider."""
    return _page(parts, request, target, 503 if failure.is_away else 403, failure=failure)


@_inside.post("/sign-out")
def sign_out(parts: PartsDep, _: ReaderThere, request: Request) -> Response:
    parts.sign_in.end(request.cookies[COOKIE])
    answer = RedirectResponse(SIGN_IN, 303)
    answer.delete_cookie(COOKIE)
    return answer


router.include_router(_inside)


def _page(
    parts: ConsoleParts,
    request: Request,
    target: str,
    status: int = 200,
    *,
    is_refused: bool = False,
    failure: SignInFailed | None = None,
) -> Response:
    request.state.visitor = None
    client = parts.oidc.client if parts.oidc else None
    # At the URL that the provider knows, whatever URL this page was opened at, because a cookie belongs to one
    # host.
    address = client and f"{client.console_url}{OIDC}?next={quote(local_page(target))}"
    return parts.pages.page(
        request,
        "sign_in.html",
        status,
        target=target,
        oidc_address=address,
        oidc_host=client and urlsplit(client.issuer).hostname,
        is_refused=is_refused,
        failure=failure,
    )


def local_page(target: str) -> str:
    """The path if it is a page of ours, otherwise the first page."""
    is_ours = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if is_ours else "/"
