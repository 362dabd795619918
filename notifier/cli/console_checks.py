"""Checks of `notifier doctor` on the console: whether people can sign in with the identity provider."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from notifier.cli.check_result import Check, split_error
from notifier.domain.errors import ConfigurationError, SignInFailed

if TYPE_CHECKING:
    from notifier.config.settings import Settings

_NAME = "sign-in"


def check_sign_in(settings: Settings) -> Iterator[Check]:
    """Whether the provider answers as OpenID Connect requires. Whether it knows this service, only a sign-in
    shows."""
    from notifier.config.identity_provider import oidc_client
    from notifier.operations.identity_provider import IdentityProvider

    try:
        client = oidc_client(settings)
    except ConfigurationError as error:
        yield Check(_NAME, False, *split_error(str(error)))
        return
    if client is None:
        return
    try:
        asyncio.run(IdentityProvider(client.issuer).keys())
    except SignInFailed as error:
        why = f" ({type(error.__cause__).__name__})" if error.__cause__ else ""
        fix = f"check NOTIFIER_OIDC_ISSUER ({client.issuer}), and that this machine reaches it"
        if error.reason == "other_issuer":
            fix = "set NOTIFIER_OIDC_ISSUER to exactly that"
        yield Check(_NAME, False, error.problem.rstrip(".") + why, fix)
    else:
        yield Check(_NAME, True, f"{client.issuer} answers; it must allow {client.redirect_uri}")
