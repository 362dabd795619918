"""Which settings of the identity provider go together, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.config.identity_provider import oidc_client
from notifier.config.settings import Settings
from notifier.config.structure import Structure
from notifier.domain.errors import ConfigurationError

ROLES = {"operate": ["ops"]}
WHOLE = {
    "oidc_issuer": "https://login.example.com/realms/us",
    "oidc_client_id": "console",
    "oidc_client_secret": "a secret",
    "public_url": "https://notify.example.com/",
}


def settings_with(table: dict[str, Any], **fields: Any) -> Settings:
    return Settings(structure=Structure.model_validate({"console": {"sign_in": table}}), **fields)


def test_the_address_is_the_public_one_unless_the_console_has_its_own() -> None:
    assert oidc_client(settings_with({}, public_url="x")) is None
    found = oidc_client(settings_with(ROLES, **WHOLE))
    assert found is not None
    assert found.redirect_uri == "https://notify.example.com/sign-in/oidc/callback"
    assert "a secret" not in repr(found)
    own = oidc_client(settings_with({**ROLES, "console_url": "http://localhost:8080"}, **WHOLE))
    assert own is not None
    assert own.redirect_uri == "http://localhost:8080/sign-in/oidc/callback"


@pytest.mark.parametrize(
    ("table", "changed", "said"),
    [
        (ROLES, {"oidc_client_secret": None}, "NOTIFIER_OIDC_CLIENT_SECRET is not set, but other"),
        (ROLES, {"oidc_client_secret": ""}, "NOTIFIER_OIDC_CLIENT_SECRET is not set, but other"),
        (ROLES, {"oidc_issuer": None}, "NOTIFIER_OIDC_ISSUER is not set, but other"),
        ({}, {}, "no group has a role"),
        (ROLES, {"oidc_issuer": "http://login.example.com"}, "is not an https URL"),
        (ROLES, {"oidc_issuer": "https://user@login.example.com"}, "is not an https URL"),
        (ROLES, {"oidc_issuer": "https://[login"}, "is not an https URL"),
        (ROLES, {"public_url": None}, "set NOTIFIER_PUBLIC_URL, or console_url"),
        (ROLES, {"public_url": "https://example.com/notifier"}, "NOTIFIER_PUBLIC_URL is not like"),
        ({**ROLES, "console_url": "http://console.example.com"}, {}, "console_url of .* is not like"),
    ],
)
def test_a_slip_is_named(table: dict[str, Any], changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        oidc_client(settings_with(table, **{**WHOLE, **changed}))
