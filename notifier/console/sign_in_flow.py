"""One sign-in by the identity provider, from the page to the provider and back, bound to the browser by a cookie.

The cookie holds a random secret, when the sign-in began, and the page that was asked for. What the provider is
given (state, nonce, the challenge of the verifier) is derived from all three: who lacks the cookie cannot end this
sign-in, and nothing in the cookie can be changed. The database keeps nothing of it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from urllib.parse import quote, unquote

#: Long enough for a second factor.
MAX_SECONDS = 600
#: A longer address of a page is left out: browsers drop larger cookies. Characters.
_MAX_TARGET = 2000


@dataclass(frozen=True, slots=True)
class SignInFlow:
    secret: str
    #: Unix time.
    begun: int
    #: The page that was asked for.
    target: str

    @classmethod
    def begin(cls, target: str) -> SignInFlow:
        kept = target if len(quote(target)) <= _MAX_TARGET else "/"
        return cls(secrets.token_urlsafe(32), int(time.time()), kept)

    @classmethod
    def read(cls, cookie: str) -> SignInFlow | None:
        """None: it is no cookie of ours."""
        secret, _, rest = cookie.partition(".")
        begun, _, target = rest.partition(".")
        is_ours = len(secret) == 43 and begun.isascii() and begun.isdecimal() and len(begun) < 15
        return cls(secret, int(begun), unquote(target)) if is_ours else None

    @property
    def cookie(self) -> str:
        return f"{self.secret}.{self.begun}.{quote(self.target, safe='')}"

    @property
    def state(self) -> str:
        return self._derived("state")

    @property
    def nonce(self) -> str:
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """Of PKCE (RFC 7636)."""
        return self._derived("verifier")

    def is_answered_by(self, state: str) -> bool:
        """Whether the answer belongs to this sign-in, and comes in time."""
        is_in_time = abs(time.time() - self.begun) <= MAX_SECONDS
        return is_in_time and hmac.compare_digest(self.state.encode(), state.encode())

    def _derived(self, purpose: str) -> str:
        text = f"{purpose} {self.begun} {self.target}"
        made = hmac.digest(self.secret.encode(), text.encode(), hashlib.sha256)
        return urlsafe_b64encode(made).rstrip(b"=").decode()
