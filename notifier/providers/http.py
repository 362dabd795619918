"""One HTTP request of a provider: its deadline, and whether it was sent.

If no byte of a request was sent, it was certainly not accepted. If it was sent and has no complete answer, or a
5xx, it may have been.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType, SimpleNamespace

import aiohttp

from notifier.domain.errors import SendError
from notifier.providers.outcomes import ACCOUNT, REFUSED, THROTTLED, UNAVAILABLE, UNKNOWN, Verdict
from notifier.providers.redaction import sms_detail
from notifier.providers.system_resolver import SystemResolver

#: For DNS, TCP and TLS together.
CONNECT_SECONDS = 3.0
#: Idle connections are dropped before a server or a balancer drops them (theirs last a minute or more): a POST on
#: a connection that the other side just closed ends in an unknown outcome.
_KEEPALIVE_SECONDS = 10.0
#: Longer waits are cut to this: one odd answer must not park a message for days.
MAX_RETRY_AFTER_SECONDS = 3600.0

_BY_STATUS: Mapping[int, Verdict] = MappingProxyType(
    {
        401: ACCOUNT,
        403: ACCOUNT,
        404: ACCOUNT,
        405: ACCOUNT,
        407: ACCOUNT,
        # RFC 9110 section 15.5.9: the server did not receive a complete request.
        408: UNAVAILABLE,
        # RFC 6585 section 4.
        429: THROTTLED,
    }
)


@dataclass(slots=True)
class HttpCall:
    """One request under way: its deadline, and what is known about it if it ends in an exception."""

    deadline_seconds: float
    #: Set just before the first byte of the request is sent; until then the provider has nothing.
    was_written: bool = False
    #: None until the headers of the answer are here.
    status: int | None = None
    headers: Mapping[str, str] | None = None
    #: None until the whole answer is here.
    body: str | None = None


def open_session() -> aiohttp.ClientSession:
    """A session for `exchange`. Create it in the event loop that uses it."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_note_written)
    # No limit of connections: the worker bounds its calls, and waiting here would count as time to connect.
    connector = aiohttp.TCPConnector(
        resolver=SystemResolver(socket.AI_ADDRCONFIG), limit=0, keepalive_timeout=_KEEPALIVE_SECONDS
    )
    return aiohttp.ClientSession(connector=connector, trace_configs=[trace])


async def exchange(
    session: aiohttp.ClientSession,
    call: HttpCall,
    method: str,
    url: str,
    *,
    params: Mapping[str, str] | None = None,
    data: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send one request and read its answer into `call`; never a second request for the same call.

    Raises:
        aiohttp.ClientError, TimeoutError, OSError: `HttpCall.was_written` tells what that means.
    """
    call.was_written, call.status, call.headers, call.body = False, None, None, None
    limits = aiohttp.ClientTimeout(
        total=call.deadline_seconds, connect=min(CONNECT_SECONDS, call.deadline_seconds)
    )
    # aiohttp repeats requests on a stale connection, but only idempotent ones: POST is not (client.py,
    # IDEMPOTENT_METHODS). A redirect of a POST must not be followed either.
    async with session.request(
        method,
        url,
        params=params,
        data=data,
        headers=headers,
        timeout=limits,
        allow_redirects=False,
        trace_request_ctx=call,
    ) as response:
        call.status, call.headers = response.status, response.headers
        call.body = await response.text(errors="replace")


async def _note_written(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    context.trace_request_ctx.was_written = True


@contextlib.asynccontextmanager
async def in_time(call: HttpCall) -> AsyncIterator[None]:
    """End the block at the call's deadline, and turn network errors into one of the `SendError`s."""
    try:
        async with asyncio.timeout(call.deadline_seconds):
            yield
    except (aiohttp.ClientError, OSError) as error:
        raise _lost(call, error) from error


def _lost(call: HttpCall, error: Exception) -> SendError:
    words = "no answer in time" if isinstance(error, TimeoutError) else sms_detail(str(error))
    detail = f"{type(error).__name__}: {words}"
    if call.was_written:
        return UNKNOWN.error(detail, code=str(call.status or ""))
    return UNAVAILABLE.error(detail)


def judge_status(status: int) -> Verdict:
    """What an answer other than 2xx without a provider's code means: it comes from a proxy or a wrong address.

    A 5xx is unknown; a 3xx does not come from an API, so the address is wrong; any other 4xx is a refusal.
    """
    if status >= 500:
        return UNKNOWN
    return _BY_STATUS.get(status, ACCOUNT if status < 400 else REFUSED)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """RFC 9110 section 10.2.3: seconds or a date. None if it is absent or makes no sense. A date is compared with
    the answer's own `Date`, because this machine's clock may be wrong."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        answered = headers.get("Date")
        now = parsedate_to_datetime(answered) if answered else datetime.now(UTC)
        seconds = (parsedate_to_datetime(value) - now).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def basic_authorization(user: str, password: str) -> dict[str, str]:
    """The header of RFC 7617. aiohttp.BasicAuth is deprecated, and not all versions that we accept have its
    successor."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
