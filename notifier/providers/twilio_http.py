"""The HTTP under Twilio's client: a deadline on every request, and knowledge of whether the request left us.

Twilio's own `AsyncTwilioHttpClient` has neither. Its `timeout=` is not passed on, so a silent server holds a call
for ever, and its `max_retries=` repeats POST, which sends an SMS twice. Both stay unused here.
"""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.http.response import Response

#: For DNS, TCP and TLS together.
CONNECT_SECONDS = 3.0
#: Idle connections are dropped before a server or a balancer drops them (theirs last a minute or more): a POST on
#: a connection that the other side just closed ends in an unknown outcome.
_KEEPALIVE_SECONDS = 10.0
_API = "https://api.twilio.com"

# At INFO it writes the URL of every request, and with it the account.
logging.getLogger("twilio").setLevel(logging.WARNING)


@dataclass(slots=True)
class Call:
    """One request while it is under way: its deadline, and what is known about it when it ends in an exception."""

    deadline_seconds: float
    #: Set just before the first byte of the request goes out; while it is False the provider has nothing.
    was_written: bool = False
    #: HTTP status; None until the answer's headers are here.
    status: int | None = None
    headers: Mapping[str, str] | None = None
    body: str | None = None


_current: ContextVar[Call] = ContextVar("twilio_call")


@contextlib.contextmanager
def calling(deadline_seconds: float) -> Iterator[Call]:
    """Requests of the client within the block belong to this call: Twilio's client hands nothing through."""
    call = Call(deadline_seconds)
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)


class DeadlineHttpClient(AsyncTwilioHttpClient):  # type: ignore[misc]  # twilio ships no types
    """Twilio's HTTP client with our own `request`. Make it inside the event loop that uses it."""

    def __init__(self, api_base: str | None = None) -> None:
        super().__init__(pool_connections=False)
        self._api_base = api_base
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_note_written)
        # No limit of connections: the worker bounds its calls, and waiting here would count as time to connect.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS)
        self.session = aiohttp.ClientSession(connector=connector, trace_configs=[trace])

    async def request(
        self,
        method: str,
        url: str,
        params: dict[str, str] | None = None,
        data: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
        allow_redirects: bool = False,
    ) -> Any:
        """Send one request; never a second one for the same call.

        Raises:
            aiohttp.ClientError, TimeoutError, OSError: `Call.was_written` tells what that means.
        """
        call = _current.get()
        limits = aiohttp.ClientTimeout(
            total=call.deadline_seconds, connect=min(CONNECT_SECONDS, call.deadline_seconds)
        )
        # aiohttp repeats requests on a stale connection, but only idempotent ones: POST is not (client.py,
        # IDEMPOTENT_METHODS). A redirect of a POST must not be followed either.
        async with self.session.request(
            method.upper(),
            self._address(url),
            params=params,
            data=data,
            headers={**(headers or {}), **_authorization(auth)},
            timeout=limits,
            allow_redirects=False,
            trace_request_ctx=call,
        ) as response:
            call.status, call.headers = response.status, response.headers
            call.body = await response.text()
        return Response(call.status, call.body, call.headers)

    def _address(self, url: str) -> str:
        if self._api_base is None or not url.startswith(_API):
            return url
        base, asked = urlsplit(self._api_base), urlsplit(url)
        return urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + asked.path, asked.query, ""))


def _authorization(auth: tuple[str, str] | None) -> dict[str, str]:
    # By hand, because aiohttp.BasicAuth is deprecated and what replaces it is not in all versions that we take.
    if auth is None:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(":".join(auth).encode()).decode()}


async def _note_written(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    context.trace_request_ctx.was_written = True
