"""An OpenID provider on a socket: authorization code flow with PKCE, and every fault that a test wants.

Browsers are signed in at once, as the person that the test has set.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

from aiohttp import BasicAuth, web
from joserfc import jwt
from joserfc.jwk import RSAKey

from notifier.dev.http_server import LocalHttpServer
from tests.waiting import patient

CLIENT_ID, CLIENT_SECRET = "notifier-console", "a secret of the client"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def sent_back(address: str) -> str:
    """Go to the provider as a browser does. Returns where it sends us."""
    try:
        urllib.request.build_opener(_NoRedirect).open(address, timeout=patient(10))
    except urllib.error.HTTPError as answer:
        with answer:
            return str(answer.headers["location"])
    raise AssertionError("the provider did not send the browser back")


def _key() -> RSAKey:
    return RSAKey.generate_key(2048, {"use": "sig"}, auto_kid=True)


class OidcProvider(LocalHttpServer):
    def __init__(self) -> None:
        super().__init__()
        self.key = _key()
        self.tokens_given = 0
        self._codes: dict[str, dict[str, str]] = {}
        self.reset()

    def reset(self) -> None:
        """End all faults."""
        #: Claims of the person who signs in; they replace the right values. None: the claim is left out.
        self.claims: dict[str, Any] = {"sub": "7", "email": "mona@example.com", "email_verified": True}
        self.claims["groups"] = ["ops"]
        #: Added to the discovery document.
        self.document: dict[str, Any] = {}
        #: Returned instead of the token endpoint's answer.
        self.token_answer: web.Response | None = None
        #: Algorithm of the signature; "none" and "HS256" are made as an attacker would.
        self.algorithm = "RS256"
        #: Signs instead of the published key.
        self.other_key: RSAKey | None = None

    @property
    def issuer(self) -> str:
        return self.url

    def change_key(self) -> None:
        self.key = _key()

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/.well-known/openid-configuration", self._discovery)
        application.router.add_get("/keys", self._keys)
        application.router.add_get("/authorize", self._authorize)
        application.router.add_post("/token", self._token)
        return application

    async def _discovery(self, _: web.Request) -> web.Response:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "scopes_supported": ["openid", "email", "profile", "groups"],
            "authorization_response_iss_parameter_supported": True,
        }
        return web.json_response(document | self.document)

    async def _keys(self, _: web.Request) -> web.Response:
        # Keys that nobody can use, for example for a future kind of signature.
        strange: list[dict[str, Any]] = [
            {"kty": "AKP", "kid": "later", "alg": "ML-DSA-44", "pub": "AA"},
            {"kty": "EC", "kid": "curve", "crv": "P-999", "x": "AA", "y": "AA"},
            {"kty": "RSA", "kid": "broken", "n": 7, "e": "AQAB"},
            {"kid": "none"},
        ]
        # Additional members that some providers include.
        more = {"x5t": "AA", "issuer": self.issuer, "cloud_instance_name": "x"}
        return web.json_response({"keys": [*strange, {**self.key.as_dict(private=False), **more}]})

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"], "iss": self.issuer})
        raise web.HTTPFound(f"{asked['redirect_uri']}?{back}")

    async def _token(self, request: web.Request) -> web.Response:
        if self.token_answer is not None:
            return self.token_answer
        form = await request.post()
        given = BasicAuth.decode(request.headers.get("Authorization", "Basic Og=="))
        if (given.login, given.password) != (CLIENT_ID, CLIENT_SECRET):
            return web.json_response({"error": "invalid_client"}, status=401)
        # A code is valid once.
        asked = self._codes.pop(str(form["code"]), None)
        made = _encoded(hashlib.sha256(str(form["code_verifier"]).encode()).digest())
        if asked is None or asked["redirect_uri"] != form["redirect_uri"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        if made != asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.tokens_given += 1
        return web.json_response({"token_type": "Bearer", "access_token": "x", "id_token": self._signed(asked)})

    def _signed(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        right = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims = {name: value for name, value in (right | self.claims).items() if value is not None}
        key = self.other_key or self.key
        header = {"alg": self.algorithm, "kid": key.kid}
        if self.algorithm == "RS256":
            return jwt.encode(header, claims, key)
        # What an attacker makes who has only the public key.
        text = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        if self.algorithm == "none":
            return f"{text}."
        return f"{text}.{_encoded(hmac.digest(key.as_pem(private=False), text.encode(), 'sha256'))}"


class SilentProvider(OidcProvider):
    """Accepts every request, and never answers."""

    asked = 0

    async def _discovery(self, _: web.Request) -> web.Response:
        self.asked += 1
        await self._stopping.wait()
        raise web.HTTPGone


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
