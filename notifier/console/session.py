"""Finds out who asks for a page, by the cookie of their session.

A form that changes something is accepted only from our own pages: it carries the visitor's `form_token`, and
browsers say in `Sec-Fetch-Site` where it was sent from.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from notifier.api.auth import check_scope
from notifier.api.errors import Refusal
from notifier.console.answers import COOKIE, ConsoleRoute, Handle
from notifier.console.form_again import FORM_TOKEN
from notifier.console.parts import ConsoleParts
from notifier.operations.api_keys import Scope
from notifier.operations.sign_in import Visitor

SIGN_IN = "/sign-in"
#: The path to the identity provider.
OIDC = "/sign-in/oidc"
#: The header in which scripts send the visitor's form token.
_HEADER = "x-form-token"


class VisitorNeeds:
    """A dependency: the visitor needs one of these scopes. `PageRoute` checks it."""

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = scopes

    async def __call__(self, request: Request) -> Visitor:
        visitor: Visitor = request.state.visitor
        return visitor


class PageRoute(ConsoleRoute):
    """A page for visitors. Anybody who is not signed in is asked to sign in."""

    def checked(self, handle: Handle) -> Handle:
        [needs] = [found.call for found in self.dependant.dependencies if isinstance(found.call, VisitorNeeds)]

        async def checked(request: Request) -> Response:
            parts: ConsoleParts = request.app.state.console
            token = request.cookies.get(COOKIE, "")
            # A visitor's requests share the threads with keys, and get no more of them than one key.
            async with parts.shares.turn(f"console:{token}"):
                visitor = await run_in_threadpool(parts.sign_in.visitor, token)
                if visitor is None:
                    return _to_sign_in(request)
                request.state.visitor = visitor
                check_scope(visitor.holder, *needs.scopes)
                if request.method == "POST":
                    await _check_form(request, visitor)
                return await handle(request)

        return checked


def set_cookie(
    answer: Response, request: Request, name: str, value: str, seconds: int, *, path: str = "/"
) -> None:
    """Set a cookie that scripts cannot read. With `Lax`, links in mails and chats and the identity provider's
    redirect lead to the page still signed in, but forms of other sites get no cookie."""
    # Several proxies make a list of it; the first one talked to the browser.
    scheme = request.headers.get("x-forwarded-proto", request.url.scheme).partition(",")[0].strip()
    is_tls = scheme.lower() == "https"
    answer.set_cookie(name, value, max_age=seconds, path=path, httponly=True, samesite="lax", secure=is_tls)


def refuse_other_sites(request: Request) -> None:
    """Raises `Refusal`, 403, if the browser says that another site sent the request. Without TLS some browsers
    only say it in `Origin`."""
    headers = request.headers
    if (site := headers.get("sec-fetch-site")) is not None:
        is_ours = site in ("same-origin", "none")
    elif (origin := headers.get("origin")) is not None:
        hosts = (headers.get("host"), headers.get("x-forwarded-host"))
        is_ours = urlsplit(origin).netloc.lower() in {host.lower() for host in hosts if host}
    else:
        is_ours = True  # no current browser
    if not is_ours:
        raise Refusal(403, "this was sent from another site: open the console and do it there")


async def _check_form(request: Request, visitor: Visitor) -> None:
    refuse_other_sites(request)
    given = request.headers.get(_HEADER) or str((await request.form()).get(FORM_TOKEN) or "")
    if not visitor.may_send_back(given):
        raise Refusal(403, "this form is not of your session: go back, load the page again, and repeat it")


def _to_sign_in(request: Request) -> Response:
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = SIGN_IN + (f"?next={quote(back)}" if request.method == "GET" and back != "/" else "")
    if "hx-request" in request.headers:
        # This was a request for a part of a page; the whole page goes there.
        return Response(status_code=401, headers={"HX-Redirect": SIGN_IN})
    return RedirectResponse(target, 303)


ReaderThere = Annotated[Visitor, Depends(VisitorNeeds(Scope.READ))]
SenderOrOperatorThere = Annotated[Visitor, Depends(VisitorNeeds(Scope.SEND, Scope.OPERATE))]
OperatorThere = Annotated[Visitor, Depends(VisitorNeeds(Scope.OPERATE))]
AdminThere = Annotated[Visitor, Depends(VisitorNeeds(Scope.ADMIN))]
