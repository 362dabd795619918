"""What the service needs to know about the organisation's identity provider (OpenID Connect)."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from notifier.config.console import SignInTable
from notifier.config.settings import Settings
from notifier.domain.errors import ConfigurationError

#: The path to which the identity provider sends browsers back.
CALLBACK_PATH = "/sign-in/oidc/callback"

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class OidcClient:
    """The service as a client of the identity provider."""

    #: Exactly as written in the provider's discovery document.
    issuer: str
    client_id: str
    client_secret: SecretStr
    #: Where people open the console, without a slash at the end.
    console_url: str
    table: SignInTable

    @property
    def redirect_uri(self) -> str:
        return self.console_url + CALLBACK_PATH


def oidc_client(settings: Settings) -> OidcClient | None:
    """The client from the settings; None: people sign in with keys only.

    Raises:
        ConfigurationError: something is missing or wrong.
    """
    issuer, client_id, secret = settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret
    if not (issuer or client_id or secret):
        return None
    if not (issuer and client_id and secret and secret.get_secret_value()):
        found = {"ISSUER": issuer, "CLIENT_ID": client_id, "CLIENT_SECRET": secret}
        missing = next(f"NOTIFIER_OIDC_{name}" for name, value in found.items() if not value)
        raise _wrong(f"{missing} is not set, but other NOTIFIER_OIDC_… are: set it, or none of them", missing)
    table = settings.structure.console.sign_in
    if not (table.read or table.operate or table.admin):
        raise _wrong(
            "nobody could sign in by the identity provider, because no group has a role: name groups in read, "
            "operate or admin of [console.sign_in] in notifier.toml",
            "console.sign_in",
        )
    if not is_safe_url(issuer):
        raise _wrong("NOTIFIER_OIDC_ISSUER is not an https URL: set it to the provider's", "NOTIFIER_OIDC_ISSUER")
    return OidcClient(issuer, client_id, secret, _console_url(settings, table), table)


def is_safe_url(url: str) -> bool:
    """Whether nobody can read on the way what is sent there: https, or this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host or parts.username or parts.fragment or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def _console_url(settings: Settings, table: SignInTable) -> str:
    # Never from a request, whose Host is whatever the sender writes.
    name = "NOTIFIER_PUBLIC_URL" if table.console_url is None else "console_url of [console.sign_in]"
    url = (table.console_url or settings.public_url or "").rstrip("/")
    if not url:
        raise _wrong(
            "sign-in by the identity provider needs the console's address: set NOTIFIER_PUBLIC_URL, or "
            "console_url of [console.sign_in] in notifier.toml",
            name,
        )
    if not is_safe_url(url) or urlsplit(url).path or urlsplit(url).query:
        raise _wrong(f"{name} is not like https://console.example.com: correct it", name)
    return url


def _wrong(text: str, setting: str) -> ConfigurationError:
    return ConfigurationError(text, setting=setting)
