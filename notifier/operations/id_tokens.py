"""Sign-in by OpenID Connect: the authorization code flow with PKCE, and the checks of an ID token.

A token is accepted if it is signed with a key of the provider, issued by the provider for us, valid now, and made
for this very sign-in.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol, cast

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import ClaimError, ExpiredTokenError, InvalidKeyIdError, JoseError
from joserfc.jwk import Key, KeySet, import_key
from joserfc.jws import JWSRegistry

from notifier.config.console import SignInTable
from notifier.config.identity_provider import OidcClient
from notifier.domain.errors import SignInFailed
from notifier.operations.api_keys import Scope
from notifier.operations.identity_provider import DiscoveryDocument, IdentityProvider, PublishedKeys
from notifier.operations.sign_in import VerifiedPerson

#: Algorithms in which only the holder of a private key can sign. Not `none`, and not HS…, whose key both sides
#: have.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
#: How far the clocks of provider and service may differ.
LEEWAY_SECONDS = 60
#: Maximum length of a person's name in the operator log. Characters.
MAX_NAME = 200

_SCOPES = ("openid", "email", "profile")


class FlowSecrets(Protocol):
    """Three values of one sign-in that nobody can guess."""

    @property
    def state(self) -> str: ...
    @property
    def nonce(self) -> str: ...
    @property
    def verifier(self) -> str: ...


class OidcSignIn:
    """Signs people in. Every method raises `SignInFailed`. Use it in one event loop at a time."""

    def __init__(self, client: OidcClient, provider: IdentityProvider | None = None) -> None:
        """`provider` defaults to the one that `client` names."""
        self.client = client
        self._provider = provider or IdentityProvider(client.issuer)

    async def address(self, secrets: FlowSecrets) -> str:
        """The URL at which the provider asks people to sign in."""
        document = await self._provider.document()
        # Some providers send groups only if asked to; others refuse an unknown scope.
        groups = self.client.table.groups_claim
        more = (groups,) if groups in document.scopes_supported and groups not in _SCOPES else ()
        address: str = prepare_grant_uri(
            document.authorization_endpoint,
            client_id=self.client.client_id,
            response_type="code",
            redirect_uri=self.client.redirect_uri,
            scope=" ".join((*_SCOPES, *more)),
            state=secrets.state,
            nonce=secrets.nonce,
            code_challenge=create_s256_code_challenge(secrets.verifier),
            code_challenge_method="S256",
        )
        return address

    async def person(self, code: str, issuer: str, secrets: FlowSecrets) -> VerifiedPerson:
        """The person whom the provider sent back with this code. `issuer` is the provider's name in that answer,
        or ""."""
        document = await self._provider.document()
        is_ours = issuer == self.client.issuer
        if not is_ours and (issuer or document.authorization_response_iss_parameter_supported):
            raise _not_believed("other_issuer")
        token = await self._provider.id_token(*self._request(document, code, secrets.verifier))
        return person_of(await self._claims(token, secrets.nonce), self.client.table)

    def _request(self, document: DiscoveryDocument, code: str, verifier: str) -> tuple[str, Mapping[str, str]]:
        methods = document.token_endpoint_auth_methods_supported
        is_post = "client_secret_basic" not in methods and "client_secret_post" in methods
        client, secret = self.client, self.client.client_secret.get_secret_value()
        auth = ClientAuth(client.client_id, secret, "client_secret_post" if is_post else "client_secret_basic")
        form = prepare_token_request(
            "authorization_code", code=code, redirect_uri=client.redirect_uri, code_verifier=verifier
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        _, headers, form = auth.prepare("POST", document.token_endpoint, headers, form)
        return cast("str", form), headers

    async def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        try:
            try:
                found = _read(token, await self._provider.keys())
            except InvalidKeyIdError:
                # The provider has changed its keys since they were read.
                found = _read(token, await self._provider.keys(anew=True))
            self._check(found, nonce)
        except InvalidKeyIdError:
            raise _not_believed("unknown_key") from None
        except ExpiredTokenError:
            raise _not_believed("expired_token") from None
        except ClaimError as error:
            raise _not_believed(f"wrong_{error.claim}") from None
        except JoseError as error:
            raise _not_believed(f"token_{error.error}") from None
        except (ValueError, TypeError, KeyError):
            raise _not_believed("token_unreadable") from None
        return found.claims

    def _check(self, token: jwt.Token, nonce: str) -> None:
        wanted = {
            "iss": {"essential": True, "value": self.client.issuer},
            "aud": {"essential": True, "value": self.client.client_id},
        }
        own = {"client_id": self.client.client_id, "nonce": nonce}
        CodeIDToken(token.claims, token.header, wanted, own).validate(leeway=LEEWAY_SECONDS)


def _read(token: str, keys: PublishedKeys) -> jwt.Token:
    registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    return jwt.decode(token, KeySet(list(_usable(keys))), registry=registry)


def _usable(published: PublishedKeys) -> Iterator[Key]:
    """The keys that we can use. One that we do not understand, such as a future type, does not spoil the
    others."""
    for key in published.keys:
        if key.get("use", "sig") == "sig":
            with suppress(JoseError, ValueError, TypeError, KeyError):
                yield import_key(key)


def person_of(claims: Mapping[str, Any], table: SignInTable) -> VerifiedPerson:
    """The person in the claims of an accepted token. Raises `SignInFailed` if none of their groups has a role
    here."""
    groups = _texts(claims, table.groups_claim)
    roles = {Scope.READ: table.read, Scope.OPERATE: table.operate, Scope.ADMIN: table.admin}
    scopes = frozenset(scope for scope, named in roles.items() if not groups.isdisjoint(named))
    if not scopes:
        what = "none of your groups in it has one" if groups else "it is missing or empty"
        problem = f"Your account has no role here. The claim {table.groups_claim!r} was read, and {what}."
        fix = "Ask to be added to a group that has one, or for yours to be named in [console.sign_in]."
        raise SignInFailed("no_role", problem, fix)
    return VerifiedPerson(_name(claims, table.name_claim), scopes)


def _texts(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """The texts in a claim that holds one text or a list. An e-mail address only counts if the provider has
    verified it, because some providers let people write what they like into their profile."""
    value = claims.get(name)
    if name == "email" and claims.get("email_verified") not in (True, "true"):
        return frozenset()
    values = value if isinstance(value, list) else [value]
    return frozenset(one for one in values if isinstance(one, str))


def _name(claims: Mapping[str, Any], wanted: str | None) -> str:
    """The person's name for the operator log. Something that looks like an e-mail address is only used if the
    provider verified it or the settings name its claim: people could write a colleague's address into other
    claims."""
    for claim in (wanted,) if wanted else ("email", "preferred_username", "sub"):
        for text in sorted(_texts(claims, claim)):
            name = text.strip()
            may_look_so = claim in ("email", wanted) or not _looks_like_address(name)
            if name and may_look_so and len(name) <= MAX_NAME and name.isprintable():
                return name
    claim = wanted or "sub"
    problem = f"The operator log needs a name for you, and the claim {claim!r} has none that it can hold."
    raise SignInFailed("no_name", problem, "Ask for another name_claim in [console.sign_in] of notifier.toml.")


def _looks_like_address(name: str) -> bool:
    # Some keyboards produce a full-width `@`.
    return "@" in unicodedata.normalize("NFKC", name)


def _not_believed(reason: str) -> SignInFailed:
    problem = "The identity provider's answer about you could not be verified."
    fix = f"Sign in again; if it stays, tell those who run this service: {reason.replace('_', ' ')}."
    return SignInFailed(reason, problem, fix)
