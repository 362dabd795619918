"""What of Twilio can be decided without a network."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest

from notifier.domain.errors import ConfigurationError, Rejected
from notifier.domain.statuses import Reason
from notifier.providers.base import Outgoing
from notifier.providers.twilio.provider import TwilioOptions, TwilioProvider

SID = "AC" + "0" * 32
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "account_sid is missing"),
        ({"account_sid": "me", "auth_token": "secret"}, "account_sid must be AC"),
        ({"account_sid": SID}, "auth_token is missing"),
        ({"account_sid": SID, "auth_token": "secret", "api_base": "api.example.com"}, "api_base must be a URL"),
        (
            {"account_sid": SID, "auth_token": "secret", "public_url": "https://x.example/?a=b"},
            "public_url must be",
        ),
        ({"account_sid": SID, "auth_token": "secret", "validity": "36001"}, "validity must be a whole number"),
        ({"account_sid": SID, "auth_token": "secret", "token": "x"}, "token is not an option"),
    ],
)
def test_a_wrong_option_is_named_and_no_secret_repeated(options: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"provider sms: {named}") as wrong:
        TwilioProvider.from_options("sms", options)
    assert "secret" not in str(wrong.value)


def test_the_token_is_not_printed() -> None:
    assert "secret" not in repr(TwilioOptions(SID, "secret"))


@pytest.mark.parametrize("left_seconds", [-60, 0, 0.9])
def test_what_has_expired_is_rejected_before_any_call(left_seconds: float) -> None:
    provider = TwilioProvider("sms", TwilioOptions(SID, "secret"))
    outgoing = Outgoing(UUID(int=1), 1, "+15550100123", "+15550100100", "hi", seconds_to_expiry=left_seconds)
    with pytest.raises(Rejected) as rejected:
        asyncio.run(provider.send(outgoing, deadline_seconds=1))
    assert rejected.value.reason is Reason.EXPIRED
