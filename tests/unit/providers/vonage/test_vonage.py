"""What of Vonage can be decided without a network."""

from __future__ import annotations

import pytest

from notifier.domain.errors import ConfigurationError
from notifier.providers.vonage.provider import VonageOptions, VonageProvider

KEY = {"api_key": "abcd1234", "api_secret": "hush-hush"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "api_key is missing"),
        ({"api_key": "abcd1234"}, "api_secret is missing"),
        (KEY | {"api_base": "rest.example.com"}, "api_base must be a URL"),
        (KEY | {"public_url": "https://x.example/?a=b"}, "public_url must be"),
        (KEY | {"validity": "19"}, "validity must be a whole number"),
        (KEY | {"validity": "604801"}, "validity must be a whole number"),
        (KEY | {"token": "x"}, "token is not an option"),
    ],
)
def test_a_wrong_option_is_named_and_no_secret_repeated(options: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"provider sms: {named}") as wrong:
        VonageProvider.from_options("sms", options)
    assert "hush" not in str(wrong.value)


def test_the_secret_is_not_printed() -> None:
    assert "hush" not in repr(VonageOptions("abcd1234", "hush"))
