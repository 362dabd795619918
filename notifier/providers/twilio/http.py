"""The HTTP client under Twilio's library: `providers.http_session` in place of Twilio's own.

Twilio's `AsyncTwilioHttpClient` has no deadlines, and does not tell whether a request was sent. It does not pass
its `timeout=` on, so a silent server blocks a call for ever. Its `max_retries=` repeats POST, which sends an SMS
twice. The aiohttp that it uses takes three times as long as all the rest of a call.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from twilio.http import AsyncHttpClient
from twilio.http.response import Response

from notifier.providers.http import basic_authorization
from notifier.providers.http_session import HttpCall, HttpSession

_API = "https://api.twilio.com"

# At INFO it logs the URL of every request, which contains the account.
logging.getLogger("twilio").setLevel(logging.WARNING)

_current: ContextVar[HttpCall] = ContextVar("twilio_call")


@contextlib.contextmanager
def calling(deadline_seconds: float) -> Iterator[HttpCall]:
    """Requests inside the block belong to this call. A context variable is needed because Twilio's client passes
    no context through."""
    call = HttpCall(deadline_seconds)
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)


class DeadlineHttpClient(AsyncHttpClient):  # type: ignore[misc]  # twilio ships no types
    """Twilio's HTTP client with our own `request`. Create it in the event loop that uses it."""

    def __init__(self, api_base: str | None = None) -> None:
        super().__init__(logging.getLogger("twilio.async_http_client"), True)
        self._api_base = api_base
        self._session = HttpSession()

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
        """Send one request, and never a second one for the same call. Raises the errors of
        `HttpSession.exchange`."""
        call = _current.get()
        login = basic_authorization(*auth) if auth else {}
        address = self._address(url)
        headers = {**(headers or {}), **login}
        await self._session.exchange(call, method.upper(), address, params=params, data=data, headers=headers)
        return Response(call.status, call.body, call.headers)

    async def close(self) -> None:
        await self._session.close()

    def _address(self, url: str) -> str:
        if self._api_base is None or not url.startswith(_API):
            return url
        base, asked = urlsplit(self._api_base), urlsplit(url)
        return urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + asked.path, asked.query, ""))
