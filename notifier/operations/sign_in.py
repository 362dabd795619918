"""Sessions of the console: people show a key once, or come from the identity provider, and get a session. Their
browser keeps its token in a cookie.

A key's session ends with the key. A person's session keeps the scopes that their groups had at the start; if the
provider removes a group, that takes effect at the next sign-in, at most half a day later. The token is 256 random
bits; the database holds its hash.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from notifier.operations.api_keys import ApiKeys, Holder, Scope
from notifier.store.console_sessions import ConsoleSessionRepository, StoredSession


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is signed in, with what they may see and do."""

    holder: Holder
    #: Every form that they send carries it; other sites cannot know it.
    form_token: str

    def may_send_back(self, form_token: str) -> bool:
        return hmac.compare_digest(self.form_token.encode(), form_token.encode())


@dataclass(frozen=True, slots=True)
class VerifiedPerson:
    """Somebody whom the identity provider has identified, with what their groups may do."""

    name: str
    scopes: frozenset[Scope]


class SignIn:
    """Begins and reads sessions. Thread-safe. Every method raises `ServiceUnavailable`."""

    def __init__(
        self, sessions: ConsoleSessionRepository, keys: ApiKeys, *, has_identity_provider: bool = False
    ) -> None:
        self._sessions = sessions
        self._keys = keys
        #: If there is no identity provider any more, people who signed in with it are signed out.
        self._has_identity_provider = has_identity_provider

    def with_key(self, token: str, *, instead_of: str = "") -> str | None:
        """Begin a session with a key. Returns the session's token; None: the key is not valid, or may not read
        anything. `instead_of`: token of the browser's previous session, which ends."""
        holder = self._keys.holder(token.strip())
        if holder is None or not holder.may(Scope.READ):
            return None
        return self._begin(holder.key_id, holder.name, sorted(holder.scopes), instead_of)

    def with_person(self, person: VerifiedPerson, *, instead_of: str = "") -> str:
        """Begin a session for a person. Returns its token; see `with_key`."""
        return self._begin(None, person.name, sorted(person.scopes), instead_of)

    def visitor(self, token: str) -> Visitor | None:
        """The visitor of this session; None: there is no such session, or it is over."""
        if not token:
            return None
        hashed = _hash(token)
        found = self._sessions.find(hashed)
        if found is None:
            return None
        holder = self._holder(found)
        if holder is None:
            return None
        if found.is_stale:
            self._sessions.touch(hashed)
        return Visitor(holder, hashlib.sha256(f"form {token}".encode()).hexdigest())

    def end(self, token: str) -> None:
        self._sessions.end(_hash(token))

    def _begin(self, key_id: str | None, person: str, scopes: list[str], instead_of: str) -> str:
        token = secrets.token_urlsafe(32)
        values = {"token_hash": _hash(token), "key_id": key_id, "person": person, "scopes": scopes}
        self._sessions.add(values)
        if instead_of:
            self.end(instead_of)
        return token

    def _holder(self, found: StoredSession) -> Holder | None:
        if found.key_id is not None:
            return self._keys.holder_of(found.key_id)
        if not self._has_identity_provider:
            return None
        scopes = frozenset(map(Scope, found.scopes))
        return Holder(None, found.person, None, scopes, channels=None, templates=None, rate_per_second=None)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
