"""What `notifier doctor` says about sign-in by the identity provider."""

from __future__ import annotations

from notifier.cli.console_checks import check_sign_in
from notifier.config.settings import Settings
from notifier.config.structure import Structure
from notifier.dev.server_thread import running
from tests.support.oidc_provider import OidcProvider


def settings_with(issuer: str | None) -> Settings:
    structure = Structure.model_validate({"console": {"sign_in": {"operate": ["ops"]}}})
    public = "https://notify.example.com"
    return Settings(
        oidc_issuer=issuer, oidc_client_id="x", oidc_client_secret="x", public_url=public, structure=structure
    )


def test_one_line_says_whether_people_can_sign_in() -> None:
    assert not list(check_sign_in(Settings()))
    with running(OidcProvider()) as provider:
        [right] = check_sign_in(settings_with(provider.issuer))
        [other] = check_sign_in(settings_with(f"{provider.issuer}/"))
    [away] = check_sign_in(settings_with(provider.issuer))
    [wrong] = check_sign_in(settings_with(None))
    assert right.ok
    assert right.detail.endswith("it must allow https://notify.example.com/sign-in/oidc/callback")
    assert (other.ok, other.detail.partition(provider.issuer)[0]) == (False, "The identity provider calls itself ")
    assert other.fix == "set NOTIFIER_OIDC_ISSUER to exactly that"
    assert (away.ok, away.detail) == (False, "The identity provider does not answer (ClientConnectorError)")
    assert (wrong.ok, wrong.fix) == (False, "set it, or none of them")
