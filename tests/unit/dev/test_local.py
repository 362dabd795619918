"""Which local providers start beside those that are configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifier.config.running_service import RunningService
from notifier.config.settings import load_settings
from notifier.dev.local import announced, local_world, with_api


@pytest.mark.parametrize(
    ("configured", "mail", "twilio"),
    [
        ({}, True, True),
        ({"NOTIFIER_SMTP_URL": "smtp://mail.example.com"}, False, True),
        ({"NOTIFIER_TWILIO_ACCOUNT_SID": "AC1", "NOTIFIER_TWILIO_AUTH_TOKEN": "token"}, True, False),
    ],
    ids=["none", "mail", "Twilio"],
)
def test_each_provider_that_is_not_configured_has_a_local_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, configured: dict[str, str], mail: bool, twilio: bool
) -> None:
    stores = {
        "NOTIFIER_DATABASE_URL": "postgresql://db.example.com/x",
        "NOTIFIER_BROKER_URL": "amqp://mq.example.com",
    }
    for name, value in {**stores, **configured}.items():
        monkeypatch.setenv(name, value)
    with local_world(load_settings(use_running=False), tmp_path) as world:
        assert ("NOTIFIER_SMTP_URL" in world.environment) is mail
        assert ("NOTIFIER_TWILIO_API_BASE" in world.environment) is twilio
        with_api(world)
        # No real mail has a link to this machine, and no real Twilio is told to report here.
        assert ("NOTIFIER_PUBLIC_URL" in world.environment) is (mail and twilio)


def test_commands_of_the_same_user_have_the_hash_key_of_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = r"it's a key\ of 'quotes' and a $sign"
    monkeypatch.setenv("NOTIFIER_DATA_DIR", str(tmp_path))
    with announced(tmp_path, {"NOTIFIER_HASH_KEY": key}, RunningService("redis://127.0.0.1/0")):
        found = load_settings().hash_key
    assert found is not None
    assert found.get_secret_value() == key
    assert load_settings().hash_key is None
