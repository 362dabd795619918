"""Where a client finds broker and API: given, in the environment, or a `notifier up` of this user."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from notifier import Client, ConfigurationError, PublishFailed, ServiceUnavailable, new_id
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
def test_at_its_own_address_the_key_of_what_runs_here_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://127.0.0.1:8080", "HTTP://127.0.0.1:8080/"):
        assert ApiSearch("amqp://other/", api_url=url).find() == ApiAddress(url, "ntf_live_up")
        listed = ApiSearch("amqp://other/", templates=url).of_templates()
        assert listed is not None
        assert listed.find().key == "ntf_live_up"
    for url in ("http://127.0.0.1:80801", "http://127.0.0.1:8080.example.com", "http://127.0.0.1:8080/x"):
        with pytest.raises(ConfigurationError, match="no key"):
            ApiSearch(api_url=url).find()
    monkeypatch.setenv("NOTIFIER_API_KEY", "ntf_live_env")
    assert ApiSearch(api_url="http://127.0.0.1:8080").find().key == "ntf_live_env"


def test_what_a_killed_service_left_behind_is_named(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and listens not
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        left = RunningService(f"redis://:secret@{place}/0", f"http://{place}", "ntf_live_up")
        write_private(data_dir / SERVICE_FILE, json.dumps(asdict(left)))
        client = Client(producer="shop")
        with pytest.raises(PublishFailed, match=f"at {place}, and this is .* `notifier up` that no longer runs"):
            client.send("hello", "ann@example.com")
        with pytest.raises(ServiceUnavailable, match=f"{place}, where a `notifier up` ran: start it again"):
            client.status(new_id())
        with pytest.raises(PublishFailed, match=f"no broker answers at {place};"):
            Client(f"redis://{place}/0", producer="shop").send("hello", "ann@example.com")


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
    with pytest.raises(ConfigurationError, match="is not a URL"):
        ApiSearch().find()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@127.0.0.1/x",
        "redis://127.0.0.1:x/0",
        "amqp://shop:secret@127.0.0.1:999999/",
        "amqp://shop:secret/@127.0.0.1/",
        "amqp://[::1",
        "amqp://127.0.0.1/;127.0.0.2:x/",
        "secret",
    ],
)
def test_a_broker_url_that_is_none_is_said_at_once_without_its_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="the broker URL") as given:
        Client(url, producer="shop")
    monkeypatch.setenv("NOTIFIER_BROKER_URL", url)
    with pytest.raises(ConfigurationError, match="the broker URL") as found:
        Client(producer="shop").send("hello", "ann@example.com")
    for wrong in (given.value, found.value):
        assert (wrong.setting, "secret" in str(wrong)) == ("NOTIFIER_BROKER_URL", False)


@pytest.mark.parametrize(
    "url", ["amqp://shop:p%2Fw@127.0.0.1:5672/shop", "amqp://[::1]:5672//;127.0.0.1:5673", "rediss://127.0.0.1/0/"]
)
def test_a_broker_url_that_is_one_is_taken(url: str) -> None:
    Client(url, producer="shop").close()


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://h:99999", "http://h:x", "http://a b/", "http://a\nb/", "http://:1", "ftp://a"]
)
def test_an_address_of_the_api_that_is_none_names_its_setting(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a URL") as wrong:
        ApiSearch(api_url=url, api_key="ntf_live_x").find()
    assert wrong.value.setting == "NOTIFIER_API_URL"


@pytest.mark.parametrize("url", ["http://shop:secret@h", "https://secret@h:8080/x", "http://@h"])
def test_an_address_of_the_api_with_a_user_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="names a user: leave out") as wrong:
        ApiSearch(api_url=url, api_key="ntf_live_x").find()
    assert (wrong.value.setting, "secret" in str(wrong.value)) == ("NOTIFIER_API_URL", False)


@pytest.mark.parametrize("key", ["ntf_live_x\r\nx-other: 1", "ntf_live_x\n", "ntf live", "ntf_live_é"])
def test_a_key_that_no_header_can_carry_names_its_setting(key: str) -> None:
    client = Client("amqp://127.0.0.1:1//", producer="shop", api_url="http://127.0.0.1:1", api_key=key)
    with pytest.raises(ConfigurationError, match="not a key of the HTTP API") as wrong:
        client.status(new_id())
    assert (wrong.value.setting, "ntf_live_x" in str(wrong.value)) == ("NOTIFIER_API_KEY", False)


@pytest.mark.parametrize("templates", ["", None])
def test_a_check_whose_address_is_not_set_is_not_left_out(templates: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"templates=\S+ names no API"):
        Client("redis://127.0.0.1:1/0", producer="shop", templates=templates)
