"""Talks to the organisation's identity provider: reads its metadata and keys, and exchanges codes for ID tokens.

OpenID Connect Discovery 1.0. The provider's answers are not trusted yet: `id_tokens` checks the tokens.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

import aiohttp
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from notifier.config.identity_provider import is_safe_url
from notifier.domain.errors import SignInFailed
from notifier.providers.system_resolver import SystemResolver

#: Time limit of one request, everything included. Seconds.
DEADLINE_SECONDS = 5.0
#: Maximum concurrent requests. More are refused and do not wait, because anybody can cause them without signing
#: in.
MOST_REQUESTS = 20
#: Maximum size of an answer. Bytes.
MAX_ANSWER_BYTES = 512 * 1024
#: How long the discovery document and the keys are cached. Seconds.
KEPT_SECONDS = 3600.0

_AGAIN = "Try again in a moment, or sign in with a key."
_ASK = "Ask those who run this service: `notifier doctor` says what is wrong."

M = TypeVar("M", bound=BaseModel)


def _safe(url: str) -> str:
    if not is_safe_url(url):
        raise ValueError("is not an https URL")
    return url


_Url = Annotated[str, AfterValidator(_safe)]


class DiscoveryDocument(BaseModel):
    """What the provider says about itself; only the fields that are used."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    issuer: str
    authorization_endpoint: _Url
    token_endpoint: _Url
    jwks_uri: _Url
    scopes_supported: tuple[str, ...] = ()
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    #: The provider names itself whenever it sends a browser back (RFC 9207).
    authorization_response_iss_parameter_supported: bool = False


class PublishedKeys(BaseModel):
    """JSON Web Keys (RFC 7517)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    keys: tuple[dict[str, Any], ...]


class TokenAnswer(BaseModel):
    """The answer for a code. Of its tokens, only the one that identifies the person."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id_token: str


class _Refusal(BaseModel):
    error: str = ""


class IdentityProvider:
    """The provider. Its documents are cached for an hour. Every method raises `SignInFailed`. Use it in one event
    loop at a time."""

    def __init__(self, issuer: str, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._issuer = issuer
        self._deadline = deadline_seconds
        self._names = SystemResolver(socket.AI_ADDRCONFIG)
        self._tls = _system_certificates()
        self._under_way = 0
        self._document: tuple[float, DiscoveryDocument] | None = None
        self._keys: tuple[float, PublishedKeys] | None = None

    async def document(self) -> DiscoveryDocument:
        if self._document is None or time.monotonic() > self._document[0] + KEPT_SECONDS:
            url = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
            found = await self._read(url, DiscoveryDocument)
            if found.issuer != self._issuer:
                # Otherwise another issuer's keys would be trusted for this one.
                problem = f"The identity provider calls itself {found.issuer[:200]}, and another name is set here."
                raise SignInFailed("other_issuer", problem, _ASK)
            self._document = (time.monotonic(), found)
        return self._document[1]

    async def keys(self, *, anew: bool = False) -> PublishedKeys:
        """The provider's keys. `anew`: read them again, because a token names a key that is not in the cache."""
        if anew or self._keys is None or time.monotonic() > self._keys[0] + KEPT_SECONDS:
            found = await self._read((await self.document()).jwks_uri, PublishedKeys)
            self._keys = (time.monotonic(), found)
        return self._keys[1]

    async def id_token(self, form: str, headers: Mapping[str, str]) -> str:
        """The ID token for a code. `form` and `headers` are the request's."""
        url = (await self.document()).token_endpoint
        status, body = await self._ask("POST", url, data=form.encode(), headers=dict(headers))
        if status == 200:
            return _parsed(body, TokenAnswer).id_token
        error = _parsed(body, _Refusal).error if 400 <= status < 500 else ""
        if error in ("invalid_client", "unauthorized_client"):
            problem = "The identity provider does not accept the ID or the secret of this service."
            raise SignInFailed("client_refused", problem, _ASK)
        if error == "invalid_grant":
            raise SignInFailed("code_refused", "This sign-in was used already, or is too old.", "Sign in again.")
        raise _unusable()

    async def _read(self, url: str, model: type[M]) -> M:
        status, body = await self._ask("GET", url)
        if status != 200:
            raise _unusable()
        return _parsed(body, model)

    async def _ask(self, method: str, url: str, **more: Any) -> tuple[int, bytes]:
        """Make a request. Returns status and body."""
        if self._under_way >= MOST_REQUESTS:
            problem = "Too many people sign in just now."
            raise SignInFailed("too_many", problem, _AGAIN, is_away=True)
        self._under_way += 1
        try:
            return await self._request(method, url, **more)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            problem = "The identity provider does not answer."
            raise SignInFailed("away", problem, _AGAIN, is_away=True) from error
        finally:
            self._under_way -= 1

    async def _request(self, method: str, url: str, **more: Any) -> tuple[int, bytes]:
        """Make a request on a new connection, because people seldom sign in. Follows no redirect."""
        connector = aiohttp.TCPConnector(resolver=self._names, ssl=self._tls)
        async with (
            asyncio.timeout(self._deadline),
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                # Use the proxy that the environment names for programs, if there is one.
                trust_env=True,
                headers={"User-Agent": "notifier", "Accept": "application/json"},
            ) as session,
            session.request(method, url, allow_redirects=False, **more) as response,
        ):
            return response.status, await _whole(response)


@cache
def _system_certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise _unusable()
    return body


def _parsed(body: bytes, model: type[M]) -> M:
    try:
        return model.model_validate(json.loads(body))
    except (ValidationError, ValueError, RecursionError):
        # Without the error's own text, which quotes what was sent.
        raise _unusable() from None


def _unusable() -> SignInFailed:
    return SignInFailed(
        "unusable_answer", "The identity provider's answer could not be understood.", _ASK, is_away=True
    )
