"""Makes one call of an endpoint, with a deadline and without redirects. Only the status of the answer is kept."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from notifier.callbacks.url_guard import CheckedResolver, ForbiddenAddress, url_problem
from notifier.domain.statuses import CallbackFailure
from notifier.providers.http import retry_after

#: Time limit of a call, everything included. Seconds.
DEADLINE_SECONDS = 10.0
#: Time limit for DNS, TCP and TLS together. Seconds.
CONNECT_SECONDS = 5.0
#: Bytes of an answer that are read and dropped, so that its connection can be reused for the next call.
READ_BYTES = 4096
#: Idle connections are kept this long, because an endpoint with more callbacks is called again at once. Not
#: longer, because messages name any number of servers, and each connection is an open file. Seconds.
_KEEPALIVE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class CallbackAnswer:
    #: None: the answer was 2xx.
    failure: CallbackFailure | None
    http_status: int | None = None
    retry_after_seconds: float | None = None


class CallbackCaller:
    """Calls endpoints. Create it in the event loop that uses it."""

    def __init__(
        self,
        allowed_hosts: Collection[str] = (),
        *,
        names: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """`names` and `tls` default to the system's name servers and certificates."""
        self._allowed = allowed_hosts
        self._deadline = deadline_seconds
        # No cache of names, because each connection goes to addresses that were checked for it. No limit of
        # connections, because the caller limits its calls.
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(allowed_hosts, names),
            use_dns_cache=False,
            ssl=tls or ssl.create_default_context(),
            limit=0,
            keepalive_timeout=_KEEPALIVE_SECONDS,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            # A proxy from the environment would look up names itself.
            trust_env=False,
            headers={"User-Agent": "notifier", "Content-Type": "application/json"},
        )

    async def call(self, url: str, headers: Mapping[str, str], body: bytes) -> CallbackAnswer:
        """POST the body. Never sends a second request for one call, and never follows to another address."""
        if url_problem(url, self._allowed) is not None:
            return CallbackAnswer(CallbackFailure.FORBIDDEN_ADDRESS)
        try:
            async with asyncio.timeout(self._deadline):
                return await self._post(URL(url), headers, body)
        except ForbiddenAddress:
            return CallbackAnswer(CallbackFailure.FORBIDDEN_ADDRESS)
        except TimeoutError:
            return CallbackAnswer(CallbackFailure.TIMEOUT)
        except (aiohttp.ClientSSLError, ssl.SSLError):
            return CallbackAnswer(CallbackFailure.TLS)
        except (aiohttp.ClientError, OSError, ValueError):
            return CallbackAnswer(CallbackFailure.CONNECTION)

    async def _post(self, url: URL, headers: Mapping[str, str], body: bytes) -> CallbackAnswer:
        limits = aiohttp.ClientTimeout(total=None, connect=min(CONNECT_SECONDS, self._deadline))
        async with self._session.post(
            url, data=body, headers=headers, timeout=limits, allow_redirects=False
        ) as response:
            await self._drain(response)
            failure = judge(response.status)
            wait = retry_after(response.headers) if failure is CallbackFailure.REFUSED else None
            return CallbackAnswer(failure, response.status, wait)

    async def _drain(self, response: aiohttp.ClientResponse) -> None:
        """Read a short answer to its end. A longer answer closes the connection; its status still counts."""
        left = READ_BYTES
        try:
            while left > 0:
                piece = await response.content.read(left)
                if not piece:
                    return
                left -= len(piece)
        except aiohttp.ClientError:
            pass
        response.close()

    async def close(self) -> None:
        await self._session.close()


def judge(http_status: int) -> CallbackFailure | None:
    """What this status means; None: delivered."""
    if 200 <= http_status < 300:
        return None
    if http_status == 410:
        return CallbackFailure.GONE
    return CallbackFailure.REDIRECT if 300 <= http_status < 400 else CallbackFailure.REFUSED
