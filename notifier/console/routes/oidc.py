"""Routes for signing in with the organisation's identity provider: to the provider, and back.

They hold no thread while they wait for the provider, so a slow provider delays nobody else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from notifier.config.identity_provider import CALLBACK_PATH
from notifier.config.rare_warnings import RareWarning
from notifier.console.answers import COOKIE, ConsoleRoute
from notifier.console.errors import PAGE_ERRORS, error_page
from notifier.console.parts import ConsoleParts, PartsDep
from notifier.console.routes.session import begin_session, local_page, sign_in_again
from notifier.console.session import OIDC, SIGN_IN, set_cookie
from notifier.console.sign_in_flow import MAX_SECONDS, SignInFlow, pushed_out
from notifier.domain.errors import SignInFailed

if TYPE_CHECKING:
    from notifier.operations.id_tokens import OidcSignIn

router = APIRouter(route_class=ConsoleRoute, include_in_schema=False)

#: RFC 6749 section 4.1.2.1, and additional codes of others.
_CODE = re.compile(r"[a-z_]{1,40}\Z")
_warn_failed = RareWarning("console.sign_in_failed")


@router.get(OIDC)
async def begin(
    parts: PartsDep,
    request: Request,
    next: str = "/",  # noqa: A002 - of the address
) -> Response:
    """Begin a sign-in. It is a link and not a form, because the pages' policy lets forms go nowhere else."""
    if parts.oidc is None:
        return RedirectResponse(SIGN_IN, 303)
    flow = SignInFlow.begin(local_page(next))
    try:
        answer = RedirectResponse(await parts.oidc.address(flow), 303)
    except SignInFailed as error:
        return _failed(parts, request, error, flow.target)
    for name in pushed_out(request.cookies):
        answer.delete_cookie(name, path=OIDC)
    set_cookie(answer, request, flow.cookie_name, flow.cookie, MAX_SECONDS, path=OIDC)
    return answer


@router.get(CALLBACK_PATH)
async def finish(
    parts: PartsDep, request: Request, code: str = "", state: str = "", error: str = "", iss: str = ""
) -> Response:
    """Finish a sign-in: the provider sends the browser here. Whatever the result, that sign-in is over."""
    if parts.oidc is None:
        return RedirectResponse(SIGN_IN, 303)
    flow = SignInFlow.answered(request.cookies, state)
    if flow is None:
        return _failed(parts, request, _not_begun(parts.oidc), "/")
    try:
        if error or not code:
            raise _refused(error)
        answer = await _session(parts, parts.oidc, request, flow, code, iss)
    except SignInFailed as failure:
        answer = _failed(parts, request, failure, flow.target)
    except PAGE_ERRORS as failure:
        answer = error_page(parts.pages, request, failure)
    answer.delete_cookie(flow.cookie_name, path=OIDC)
    return answer


async def _session(
    parts: ConsoleParts, oidc: OidcSignIn, request: Request, flow: SignInFlow, code: str, issuer: str
) -> Response:
    person = await oidc.person(code, issuer, flow)
    old = request.cookies.get(COOKIE, "")
    token = await run_in_threadpool(lambda: parts.sign_in.with_person(person, instead_of=old))
    return begin_session(request, token, flow.target)


def _not_begun(oidc: OidcSignIn) -> SignInFailed:
    problem = f"This sign-in was not begun in this browser, or more than {MAX_SECONDS // 60} minutes ago."
    return SignInFailed("wrong_state", problem, f"Open {oidc.client.console_url} and sign in there.")


def _refused(code: str) -> SignInFailed:
    named = code if _CODE.match(code) else "no_code"
    if named == "access_denied":
        problem = "The identity provider did not let you in, or you cancelled."
        return SignInFailed(named, problem, "Sign in again, or ask who runs it for access to this console.")
    problem = f"The identity provider refused: {named.replace('_', ' ')}."
    return SignInFailed(named, problem, "Sign in again; if it stays, tell those who run this service.")


def _failed(parts: ConsoleParts, request: Request, error: SignInFailed, target: str) -> Response:
    _warn_failed(reason=error.reason)
    return sign_in_again(parts, request, error, target)
