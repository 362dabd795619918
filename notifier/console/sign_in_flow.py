"""One sign-in with the identity provider, from the page to the provider and back, bound to the browser by a
cookie.

Each sign-in has its own cookie, named by its state, so that two tabs do not disturb each other, and an answer that
belongs to no sign-in ends none. The cookie holds a random secret, when the sign-in began, and the page that was
asked for. What the provider receives (state, nonce, the verifier's challenge) is derived from all three. So nobody
without the cookie can finish the sign-in, and nothing in the cookie can be changed. Nothing of it is stored in the
database.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

#: Long enough for a second factor.
MAX_SECONDS = 600
#: Maximum sign-ins in progress in one browser. All their cookies are in one header, and proxies refuse headers
#: over 8 kB.
MOST_FLOWS = 5
#: If the page's path is longer than this, it is dropped. Characters.
_MAX_TARGET = 1000
_PREFIX = "notifier_sign_in_"


@dataclass(frozen=True, slots=True)
class SignInFlow:
    secret: str
    #: Unix time.
    begun: int
    #: The path of the page that was asked for.
    target: str

    @classmethod
    def begin(cls, target: str) -> SignInFlow:
        kept = target if len(quote(target)) <= _MAX_TARGET else "/"
        return cls(secrets.token_urlsafe(32), int(time.time()), kept)

    @classmethod
    def answered(cls, cookies: Mapping[str, str], state: str) -> SignInFlow | None:
        """The sign-in to which the answer with this state belongs; None: there is none, or the answer is too
        late."""
        flow = cls.read(cookies.get(_name_by(state), ""))
        is_in_time = flow is not None and abs(time.time() - flow.begun) <= MAX_SECONDS
        is_its = flow is not None and hmac.compare_digest(flow.state.encode(), state.encode())
        return flow if is_in_time and is_its else None

    @classmethod
    def read(cls, cookie: str) -> SignInFlow | None:
        """Read a cookie; None: it is not one of ours."""
        secret, _, rest = cookie.partition(".")
        begun, _, target = rest.partition(".")
        is_ours = len(secret) == 43 and begun.isascii() and begun.isdecimal() and len(begun) < 15
        return cls(secret, int(begun), unquote(target)) if is_ours else None

    @property
    def cookie_name(self) -> str:
        return _name_by(self.state)

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
        """The verifier of PKCE (RFC 7636)."""
        return self._derived("verifier")

    def _derived(self, purpose: str) -> str:
        text = f"{purpose} {self.begun} {self.target}"
        made = hmac.digest(self.secret.encode(), text.encode(), hashlib.sha256)
        return urlsafe_b64encode(made).rstrip(b"=").decode()


def pushed_out(cookies: Mapping[str, str]) -> Sequence[str]:
    """Names of the oldest cookies, which have to be deleted when another sign-in begins."""
    flows = {name: SignInFlow.read(value) for name, value in cookies.items() if name.startswith(_PREFIX)}
    begun = {name: flow.begun if flow else 0 for name, flow in flows.items()}
    return sorted(begun, key=begun.__getitem__)[: 1 - MOST_FLOWS]


def _name_by(state: str) -> str:
    return _PREFIX + hashlib.sha256(state.encode()).hexdigest()[:16]
