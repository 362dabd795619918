"""When a receipt is missed, and when it is given up."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.feedback.receipt_polling import RECEIPT_WAIT_SECONDS, first_wait, next_wait
from notifier.feedback.receipts import ASK_AT_SECONDS
from notifier.providers.smtp.provider import SmtpProvider
from notifier.providers.twilio.provider import TwilioProvider
from notifier.providers.vonage.provider import VonageProvider

TWILIO = {"account_sid": "AC" + "0" * 32, "auth_token": "x"}
VONAGE = {"api_key": "abcd1234", "api_secret": "x"}
PUBLIC = {"public_url": "https://notify.example.com"}


@pytest.mark.parametrize(
    ("provider", "options", "wait"),
    [
        (SmtpProvider, {"url": "smtp://127.0.0.1:1"}, None),
        (TwilioProvider, TWILIO, ASK_AT_SECONDS[0]),
        (TwilioProvider, TWILIO | PUBLIC, ASK_AT_SECONDS[0]),
        (VonageProvider, VONAGE, None),
        (VonageProvider, VONAGE | PUBLIC, None),
        (VonageProvider, VONAGE | PUBLIC | {"signature_secret": "x"}, RECEIPT_WAIT_SECONDS),
    ],
)
def test_only_what_can_come_or_be_asked_for_is_waited_for(
    provider: Any, options: dict[str, str], wait: float | None
) -> None:
    assert first_wait(provider.from_options("one", options)) == wait


def test_pauses_grow_and_end() -> None:
    age, waits = ASK_AT_SECONDS[0], []
    while (wait := next_wait(age, was_asked=True)) is not None:
        waits.append(wait)
        age += wait
    assert waits == sorted(waits)
    assert len(waits) == len(ASK_AT_SECONDS) - 1


def test_a_sweep_that_comes_a_moment_early_does_not_ask_twice() -> None:
    assert next_wait(ASK_AT_SECONDS[1] - 1, was_asked=True) == ASK_AT_SECONDS[2] - ASK_AT_SECONDS[1] + 1


def test_a_provider_that_is_away_is_tried_for_days_and_not_for_ever() -> None:
    assert next_wait(ASK_AT_SECONDS[-1], was_asked=False) is not None
    assert next_wait(RECEIPT_WAIT_SECONDS + 1, was_asked=False) is None
