"""Routes for webhooks: provider reports, and recipients' replies to our numbers.

Each provider declares its own webhooks: see `notifier.providers.base.Webhook`. The provider's signature takes the
place of a key. Webhooks are not in the OpenAPI document, which is for producers and operators.

An answer reveals nothing about the record: a signed request gets the same answer whether or not its notification
is known, and any other request gets 403.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from notifier.api.errors import Refusal
from notifier.api.key_shares import for_outside
from notifier.api.middleware import declared_size
from notifier.config.rare_warnings import RareWarning
from notifier.feedback.receipts import Receipts
from notifier.providers.base import Webhook, WebhookRequest
from notifier.providers.registry import kinds

#: Far more than any provider sends.
MAX_BODY_BYTES = 64 * 1024
#: Time limit for the body. Seconds.
BODY_SECONDS = 10.0

_warn_refused = RareWarning("webhook.refused")
_TOO_LARGE = f"the body is larger than {MAX_BODY_BYTES} bytes"


def make_router(receipts: Receipts) -> APIRouter:
    """Make a route for each webhook that a configured kind of provider declares. Webhooks of other kinds refuse
    everything, because nobody could have signed it."""
    router = APIRouter(include_in_schema=False)
    configured = set()
    for kind, webhook in receipts.webhooks():
        _add_route(router, receipts, kind, webhook)
        configured.add(kind)
    for kind in set(kinds()) - configured:
        router.add_api_route(f"/webhooks/{kind}/{{path:path}}", partial(_refuse, kind), methods=["POST"])
    return router


async def _refuse(kind: str) -> Response:
    _warn_refused(provider=kind)
    raise Refusal(403, "the signature is not the provider's, for the account and the public URL configured here")


def _add_route(router: APIRouter, receipts: Receipts, kind: str, webhook: type[Webhook[Any]]) -> None:
    @router.post(f"/webhooks/{kind}/{webhook.path}")
    async def receive(request: Request) -> Response:
        if not await for_outside(receipts.receive, kind, webhook, await _read(request)):
            return await _refuse(kind)
        if webhook.answer is None:
            return Response(status_code=204)
        body, media_type = webhook.answer
        return Response(body, media_type=media_type)


def _number(text: str) -> int:
    """Read a number from the path. Raises `Refusal`, 404, for anything but digits."""
    if not re.fullmatch(r"[0-9]{1,100}", text):
        raise Refusal(404, "there is no such address")
    return int(text)


async def _read(request: Request) -> WebhookRequest:
    """The request as the provider signed it: with the path byte for byte, not as FastAPI would write it."""
    path = bytes(request.scope.get("raw_path") or request.url.path.encode())
    query = bytes(request.scope.get("query_string") or b"")
    named = {
        name: _number(value) if isinstance(value, str) else value for name, value in request.path_params.items()
    }
    full = (path + b"?" + query if query else path).decode("latin-1")
    return WebhookRequest(full, named, request.headers, await read_body(request))


async def read_body(request: Request) -> bytes:
    """The body, if it is small and arrives in time. Raises `Refusal`: 413 or 408."""
    if (declared_size(request.headers) or 0) > MAX_BODY_BYTES:
        raise Refusal(413, _TOO_LARGE)
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise Refusal(413, _TOO_LARGE)
    except ClientDisconnect:
        raise Refusal(400, "the request was broken off") from None
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None
    return body
