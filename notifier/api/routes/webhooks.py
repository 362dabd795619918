"""What providers call: receipts of messages that they took, and what people answer to our numbers.

There is no key: the provider's signature says who it is. Not part of the OpenAPI document, which is for producers
and operators; how these look is up to the provider.

An answer tells nothing about the record. What is signed gets the same one, whether its notification is known or
not; what is not signed gets 403, whatever it says.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator
from starlette.requests import ClientDisconnect

from notifier.api.dependencies import AtDesk
from notifier.api.errors import Refusal
from notifier.api.key_shares import for_outside
from notifier.config.logs import log
from notifier.feedback.receipts import Hook
from notifier.providers.twilio.webhooks import SIGNATURE_HEADER

router = APIRouter(include_in_schema=False)

#: Far more than any provider sends; nothing beyond it is read.
MAX_BODY_BYTES = 64 * 1024
#: A body must be here within this. Seconds.
BODY_SECONDS = 10.0

_TOO_LARGE = f"the body is larger than {MAX_BODY_BYTES} bytes"
#: "Nothing to say": Twilio's own keywords answer for us.
_NO_REPLY = '<?xml version="1.0" encoding="UTF-8"?><Response/>'


def _number(text: str) -> int:
    """Part of an address of ours. One of any other form is nobody's: how long it is does not matter.

    Raises:
        Refusal: 404.
    """
    if not re.fullmatch(r"[0-9]{1,100}", text):
        raise Refusal(404, "there is no such address")
    return int(text)


Number = Annotated[int, BeforeValidator(_number)]


@router.post("/webhooks/twilio/inbound")
async def twilio_inbound(desk: AtDesk, request: Request) -> Response:
    """Somebody wrote to one of our numbers: STOP and START are obeyed."""
    hook = await _hook(request)
    _refuse_unless(await for_outside(desk.receipts.twilio_inbound, hook), "twilio")
    return Response(_NO_REPLY, media_type="text/xml")


@router.post("/webhooks/twilio/{notification:uuid}/{attempt}")
async def twilio_status(desk: AtDesk, request: Request, notification: UUID, attempt: Number) -> Response:
    """Twilio's StatusCallback for one attempt."""
    hook = await _hook(request)
    _refuse_unless(await for_outside(desk.receipts.twilio_status, hook, notification, attempt), "twilio")
    return Response(status_code=204)


@router.post("/webhooks/vonage/{notification:uuid}/{attempt}/{parts}")
async def vonage_receipt(
    desk: AtDesk, request: Request, notification: UUID, attempt: Number, parts: Number
) -> Response:
    """Vonage's delivery receipt for a part of one attempt."""
    hook = await _hook(request)
    done = await for_outside(desk.receipts.vonage_receipt, hook, notification, attempt, parts)
    _refuse_unless(done, "vonage")
    return Response(status_code=204)


async def _hook(request: Request) -> Hook:
    """The request as the provider signed it: the path byte for byte, not as the framework would write it."""
    path = bytes(request.scope.get("raw_path") or request.url.path.encode())
    query = bytes(request.scope.get("query_string") or b"")
    return Hook(
        (path + b"?" + query if query else path).decode("latin-1"),
        await read_body(request),
        request.headers.get(SIGNATURE_HEADER, ""),
        request.headers.get("content-type", ""),
    )


async def read_body(request: Request) -> bytes:
    """The body, as far as it is small and comes in time.

    Raises:
        Refusal: 413 or 408.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > MAX_BODY_BYTES):
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
        raise Refusal(408, f"the body was not here within {BODY_SECONDS:g} s") from None
    return body


def _refuse_unless(is_signed: bool, provider: str) -> None:
    if not is_signed:
        log.warning("webhook.refused", provider=provider)
        raise Refusal(
            403, "the signature is not the provider's, for the account and the public URL configured here"
        )
