"""Sign-in by the identity provider: whom it believes, and nobody else. Against a provider on a socket."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from joserfc.jwk import RSAKey
from pydantic import SecretStr

from notifier.config.console import SignInTable
from notifier.config.identity_provider import OidcClient
from notifier.dev.server_thread import running
from notifier.domain.errors import SignInFailed
from notifier.operations import identity_provider
from notifier.operations.api_keys import Scope
from notifier.operations.id_tokens import OidcSignIn
from notifier.operations.identity_provider import MAX_ANSWER_BYTES, IdentityProvider
from notifier.operations.sign_in import VerifiedPerson
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, SilentProvider, sent_back
from tests.support.tls import certificate, served, server_context
from tests.waiting import patient


@dataclass(frozen=True)
class Flow:
    state: str = "state-1"
    nonce: str = "nonce-1"
    verifier: str = "verifier-" + "v" * 40


@pytest.fixture(scope="module")
def running_provider() -> Iterator[OidcProvider]:
    with running(OidcProvider()) as provider:
        yield provider


@pytest.fixture
def provider(running_provider: OidcProvider) -> OidcProvider:
    running_provider.reset()
    return running_provider


def sign_in_of(provider: OidcProvider, *, secret: str = CLIENT_SECRET, **table: Any) -> OidcSignIn:
    groups = SignInTable.model_validate({"operate": ["ops"], "admin": ["root"], **table})
    client = OidcClient(provider.issuer, CLIENT_ID, SecretStr(secret), "https://console.example.com", groups)
    return OidcSignIn(client, IdentityProvider(provider.issuer, deadline_seconds=patient(2)))


def code_of(address: str) -> str:
    return parse_qs(urlsplit(sent_back(address)).query)["code"][0]


def signed_in(sign_in: OidcSignIn, flow: Flow = Flow(), back: Flow = Flow()) -> VerifiedPerson:
    async def go() -> VerifiedPerson:
        code = await asyncio.to_thread(code_of, await sign_in.address(flow))
        return await sign_in.person(code, sign_in.client.issuer, back)

    return asyncio.run(go())


def reason_of(sign_in: OidcSignIn, **flows: Flow) -> str:
    with pytest.raises(SignInFailed) as caught:
        signed_in(sign_in, **flows)
    assert "Traceback" not in str(caught.value)
    return caught.value.reason


def test_a_person_with_a_group_is_signed_in(provider: OidcProvider) -> None:
    assert signed_in(sign_in_of(provider)) == VerifiedPerson("mona@example.com", frozenset({Scope.OPERATE}))
    provider.document = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    with pytest.raises(SignInFailed, match="does not accept the ID or the secret"):
        # The secret is in the form now, where this provider does not look.
        signed_in(sign_in_of(provider))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://other.example.com"}, "wrong_iss"),
        ({"aud": "another-client"}, "wrong_aud"),
        ({"aud": [CLIENT_ID, "another-client"]}, "wrong_azp"),
        ({"aud": [CLIENT_ID, "another-client"], "azp": "another-client"}, "wrong_azp"),
        ({"azp": "another-client"}, "wrong_azp"),
        ({"exp": time.time() - 120}, "expired_token"),
        ({"exp": None}, "wrong_exp"),
        ({"iat": time.time() + 1_000_000}, "wrong_iat"),
        ({"nonce": "nonce-2"}, "wrong_nonce"),
        ({"nonce": None}, "wrong_nonce"),
        ({"sub": None}, "wrong_sub"),
        ({"sub": 7}, "wrong_sub"),
        ({"groups": ["others"]}, "no_role"),
        ({"groups": None}, "no_role"),
        ({"groups": {"ops": True}}, "no_role"),
        ({"groups": "OPS"}, "no_role"),
    ],
)
def test_a_token_that_says_something_else_is_not_believed(
    provider: OidcProvider, claims: dict[str, Any], reason: str
) -> None:
    provider.claims |= claims
    assert reason_of(sign_in_of(provider)) == reason


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_signature_that_anybody_can_make_is_none(provider: OidcProvider, algorithm: str) -> None:
    provider.algorithm = algorithm
    assert reason_of(sign_in_of(provider)) == "token_unsupported_algorithm"


def test_keys_are_read_again_when_the_provider_changes_them(provider: OidcProvider) -> None:
    sign_in = sign_in_of(provider)
    first = signed_in(sign_in)
    provider.change_key()
    assert signed_in(sign_in) == first
    provider.other_key = OidcProvider().key
    assert reason_of(sign_in) == "unknown_key"
    # The name of a key is no proof of having it.
    named = {**provider.other_key.as_dict(private=True), "kid": provider.key.kid}
    provider.other_key = RSAKey.import_key(named)  # type: ignore[arg-type]
    assert reason_of(sign_in) == "token_bad_signature"


def test_a_code_is_good_once_and_for_who_began(provider: OidcProvider) -> None:
    sign_in = sign_in_of(provider)
    assert reason_of(sign_in, back=Flow(verifier="another-" + "v" * 40)) == "code_refused"
    assert reason_of(sign_in, back=Flow(nonce="another")) == "wrong_nonce"
    assert reason_of(sign_in_of(provider, secret="wrong")) == "client_refused"

    async def twice() -> None:
        code = await asyncio.to_thread(code_of, await sign_in.address(Flow()))
        await sign_in.person(code, provider.issuer, Flow())
        await sign_in.person(code, provider.issuer, Flow())

    with pytest.raises(SignInFailed, match="used already"):
        asyncio.run(twice())


@pytest.mark.parametrize("issuer", ["https://other.example.com", ""])
def test_an_answer_of_another_provider_is_not_taken(provider: OidcProvider, issuer: str) -> None:
    given = provider.tokens_given
    with pytest.raises(SignInFailed) as caught:
        asyncio.run(sign_in_of(provider).person("code", issuer, Flow()))
    assert (caught.value.reason, provider.tokens_given) == ("other_issuer", given)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"issuer": "https://other.example.com"}, "other_issuer"),
        ({"token_endpoint": "http://provider.example.com/token"}, "unusable_answer"),
        ({"jwks_uri": None}, "unusable_answer"),
        ({"padding": "x" * MAX_ANSWER_BYTES}, "unusable_answer"),
    ],
)
def test_a_wrong_discovery_document_is_refused(
    provider: OidcProvider, document: dict[str, Any], reason: str
) -> None:
    provider.document = document
    assert reason_of(sign_in_of(provider)) == reason


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>"),
        (200, "[]"),
        (200, "[" * 100_000),
        (200, '{"id_token": 7}'),
        (200, "{}"),
        (400, '{"error": 7}'),
        (502, ""),
        (302, ""),
    ],
)
def test_rubbish_is_refused(provider: OidcProvider, status: int, body: str) -> None:
    provider.token_answer = web.Response(status=status, text=body, headers={"Location": "http://127.0.0.1:1/"})
    assert reason_of(sign_in_of(provider)) == "unusable_answer"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.é.é", "a.b.c.d.e", "." * 50_000, "e30.e30."])
def test_what_is_no_token_is_refused(provider: OidcProvider, token: str) -> None:
    provider.token_answer = web.json_response({"id_token": token})
    assert reason_of(sign_in_of(provider)).startswith("token_")


def test_a_provider_that_is_away_or_hangs_ends_in_time(provider: OidcProvider) -> None:
    sign_in = sign_in_of(provider)
    table = sign_in.client.table
    with running(SilentProvider()) as silent:
        client = OidcClient(silent.url, CLIENT_ID, SecretStr("x"), "https://console.example.com", table)
        hanging = OidcSignIn(client, IdentityProvider(silent.url, deadline_seconds=0.2))
        assert reason_of(hanging) == "away"
    assert reason_of(hanging) == "away"


@pytest.mark.parametrize(("name", "is_asked"), [("IP:127.0.0.1", True), ("DNS:other.example.com", False)])
def test_a_provider_with_a_certificate_of_another_host_is_asked_nothing(
    name: str, is_asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = certificate(tmp_path, name)
    context, found = server_context(both), list[bytes]()
    monkeypatch.setenv("SSL_CERT_FILE", str(both))
    # Not those that were read before.
    monkeypatch.setattr(
        identity_provider, "_system_certificates", identity_provider._system_certificates.__wrapped__
    )

    def serve(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as connection:
            if said := connection.recv(4):
                found.append(said)

    with served(serve) as port, pytest.raises(SignInFailed):
        asyncio.run(IdentityProvider(f"https://127.0.0.1:{port}", deadline_seconds=patient(2)).document())
    assert bool(found) is is_asked


@pytest.mark.parametrize(
    ("claims", "table", "name"),
    [
        ({"email_verified": False, "preferred_username": "mona"}, {}, "mona"),
        ({"email": None, "preferred_username": " \0"}, {}, "7"),
        ({"email": "x" * 201, "preferred_username": "mona"}, {}, "mona"),
        ({"email_verified": False, "preferred_username": "mona@example.com"}, {}, "7"),
        ({"email": None, "preferred_username": "mona\uff20example.com"}, {}, "7"),
        ({"name": "Mona Lisa"}, {"name_claim": "name"}, "Mona Lisa"),
        ({"upn": "lisa@example.com"}, {"name_claim": "upn"}, "lisa@example.com"),
    ],
)
def test_the_name_is_one_that_the_provider_answers_for(
    provider: OidcProvider, claims: dict[str, Any], table: dict[str, Any], name: str
) -> None:
    provider.claims |= claims
    assert signed_in(sign_in_of(provider, **table)).name == name


def test_roles_come_from_any_claim_and_an_address_only_if_verified(provider: OidcProvider) -> None:
    by_address = sign_in_of(provider, groups_claim="email", admin=["mona@example.com"], read=["mona@example.com"])
    provider.claims["email_verified"] = False
    assert reason_of(by_address) == "no_role"
    provider.claims["email_verified"] = True
    assert signed_in(by_address).scopes == {Scope.READ, Scope.ADMIN}
    assert reason_of(sign_in_of(provider, name_claim="nickname")) == "no_name"
