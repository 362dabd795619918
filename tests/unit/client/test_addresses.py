"""Where a client finds broker and API: given, in the environment, or a `notifier up` of this user."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from notifier import Client, ConfigurationError
from notifier.client.addresses import ApiAddress, ApiSearch, find_broker
from notifier.config.running_service import SERVICE_FILE, RunningService
from notifier.dev.machine import write_private

UP = RunningService("redis://:secret@127.0.0.1:7777/0", "http://127.0.0.1:8080", "ntf_live_up")


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOTIFIER_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def up(data_dir: Path) -> None:
    write_private(data_dir / SERVICE_FILE, json.dumps(asdict(UP)))


@pytest.mark.usefixtures("up")
def test_a_given_url_wins_then_the_environment_then_what_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_broker(None) == UP.broker_url
    monkeypatch.setenv("NOTIFIER_BROKER_URL", "amqp://of.environment/")
    assert find_broker(None) == "amqp://of.environment/"
    assert find_broker("amqp://given/") == "amqp://given/"


def test_without_any_a_client_says_what_it_needs_and_only_when_it_publishes() -> None:
    client = Client(producer="shop")
    with pytest.raises(ConfigurationError, match="NOTIFIER_BROKER_URL, start `notifier up`, or send with outbox="):
        client.send("hello", "ann@example.com")


@pytest.mark.usefixtures("up")
def test_the_key_of_what_runs_here_goes_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ApiSearch().find() == ApiSearch(UP.broker_url).find() == ApiAddress(UP.api_url or "", "ntf_live_up")
    with pytest.raises(ConfigurationError, match="address"):
        ApiSearch("amqp://other/").find()
    with pytest.raises(ConfigurationError, match="key"):
        ApiSearch(api_url="https://other.example.com").find()
    monkeypatch.setenv("NOTIFIER_API_URL", "https://other.example.com")
    with pytest.raises(ConfigurationError, match="key"):
        ApiSearch().find()
    monkeypatch.setenv("NOTIFIER_API_KEY", "ntf_live_env")
    assert ApiSearch().find() == ApiAddress("https://other.example.com", "ntf_live_env")
    assert "ntf_live" not in repr(ApiSearch().find()) + repr(ApiSearch(api_key="ntf_live_x"))
    monkeypatch.setenv("NOTIFIER_API_URL", "other.example.com")
    with pytest.raises(ConfigurationError, match="is no URL"):
        ApiSearch().find()
