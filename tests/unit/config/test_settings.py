"""Settings: where they come from, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifier.config.callbacks import expand
from notifier.config.running_service import default_data_dir
from notifier.config.settings import Settings, load_settings
from notifier.config.structure import load_structure
from notifier.domain.errors import ConfigurationError
from notifier.domain.statuses import Lane


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No notifier.toml of the checkout, no running service of the developer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOTIFIER_DATA_DIR", str(tmp_path))


def test_a_wrong_variable_is_named_and_its_value_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_WORKER_THREADS", "hunter2")
    with pytest.raises(ConfigurationError, match="NOTIFIER_WORKER_THREADS") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_a_time_zone_has_an_iana_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().timezone.key == "UTC"
    monkeypatch.setenv("NOTIFIER_TIMEZONE", "Asia/Shanghai")
    assert load_settings().timezone.key == "Asia/Shanghai"
    for wrong in ("Shanghai", "UTC+8", "America", "../UTC", "localtime"):
        monkeypatch.setenv("NOTIFIER_TIMEZONE", wrong)
        with pytest.raises(
            ConfigurationError, match=r"NOTIFIER_TIMEZONE: .*write an IANA name, such as Asia/Shanghai"
        ):
            load_settings()


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_DATABASE_URL", "postgresql://user:hunter2@db/x")
    monkeypatch.setenv("NOTIFIER_TWILIO_AUTH_TOKEN", "hunter3")
    settings = load_settings()
    assert "hunter" not in repr(settings)
    assert settings.require("database_url") == "postgresql://user:hunter2@db/x"


def test_a_hash_key_is_long_enough_and_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_HASH_KEY", "hunter2")
    with pytest.raises(ConfigurationError, match=r"NOTIFIER_HASH_KEY.*16 characters") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("NOTIFIER_HASH_KEY", "hunter2" * 3)
    assert "hunter2" not in repr(load_settings())


def test_a_bounce_address_leaves_room_for_a_token_and_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_BOUNCE_ADDRESS", "bounces@example.com")
    with pytest.raises(ConfigurationError, match=r"NOTIFIER_BOUNCE_ADDRESS.*NOTIFIER_HASH_KEY"):
        load_settings()
    monkeypatch.setenv("NOTIFIER_HASH_KEY", "hunter2" * 3)
    assert load_settings().bounce_address == "bounces@example.com"
    for wrong in ("bounces", "@example.com", "bounces@", "a+b@example.com", f"{'b' * 16}@example.com", "b@-x.com"):
        monkeypatch.setenv("NOTIFIER_BOUNCE_ADDRESS", wrong)
        with pytest.raises(ConfigurationError, match=r"NOTIFIER_BOUNCE_ADDRESS.*bounces@example.com"):
            load_settings()


def test_a_secret_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFIER_SECRETS_DIR", str(tmp_path))
    secret = tmp_path / "NOTIFIER_DATABASE_URL"
    secret.write_bytes(b"postgresql://user:hunter2\xff@db/x")
    with pytest.raises(
        ConfigurationError, match=r"NOTIFIER_DATABASE_URL cannot be read \(it is not UTF-8"
    ) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
    secret.unlink()
    secret.mkdir()
    with pytest.raises(ConfigurationError, match=r"NOTIFIER_DATABASE_URL cannot be read \(Is a directory\)"):
        load_settings()
    secret.rmdir()
    secret.symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigurationError, match=r"NOTIFIER_DATABASE_URL cannot be read \(No such file"):
        load_settings()
    secret.unlink()
    (tmp_path / "somebody_elses").write_bytes(b"\xff")
    (tmp_path / "notifier_of_another_program").mkdir()
    load_settings()


def test_a_file_of_a_secret_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "notifier_broker_url").write_text("amqp://broker/\n")
    monkeypatch.setenv("NOTIFIER_SECRETS_DIR", str(tmp_path))
    assert load_settings().require("broker_url") == "amqp://broker/"


def test_what_is_empty_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = {name for name, field in Settings.model_fields.items() if not field.exclude}
    for name in (f"NOTIFIER_{name.upper()}" for name in names - {"data_dir"}):
        monkeypatch.delenv(name, raising=False)
    unset = load_settings(use_running=False)
    for name in (f"NOTIFIER_{name.upper()}" for name in names):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("NOTIFIER_SECRETS_DIR", "")
    settings = load_settings(use_running=False)
    # An empty user is none, instead of the URL's.
    assert settings.broker_user == ""
    both = {"data_dir": tmp_path, "broker_user": None}
    assert settings.model_copy(update=both) == unset.model_copy(update=both)
    assert settings.data_dir == default_data_dir()


def test_an_empty_variable_hides_no_secret_and_an_empty_secret_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFIER_SECRETS_DIR", str(tmp_path))
    for name in ("NOTIFIER_DATABASE_URL", "NOTIFIER_BROKER_URL", "RELAY_URL"):
        monkeypatch.setenv(name, "")
    (tmp_path / "NOTIFIER_DATABASE_URL").write_bytes(b"\xef\xbb\xbfpostgresql://user@db/x\r\n")
    (tmp_path / "NOTIFIER_BROKER_URL").write_bytes(b"\xef\xbb\xbf\n")
    (tmp_path / "RELAY_URL").write_bytes(b"\xef\xbb\xbfsmtp://relay.example.com\n")
    settings = load_settings(use_running=False)
    assert settings.require("database_url") == "postgresql://user@db/x"
    with pytest.raises(ConfigurationError, match="NOTIFIER_BROKER_URL is not set"):
        settings.require("broker_url")
    assert expand("provider relay", "url", "${RELAY_URL}") == "smtp://relay.example.com"
    (tmp_path / "RELAY_URL").write_text("\n")
    with pytest.raises(ConfigurationError, match=r"\$\{RELAY_URL\}, which is not set or empty"):
        expand("provider relay", "url", "${RELAY_URL}")


def test_a_folder_of_secrets_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("gone", "file"):
        monkeypatch.setenv("NOTIFIER_SECRETS_DIR", str(tmp_path / name))
        with pytest.raises(
            ConfigurationError, match=rf"NOTIFIER_SECRETS_DIR is .*/{name}, which is not a folder"
        ) as no:
            load_settings()
        assert no.value.setting == "NOTIFIER_SECRETS_DIR"


def test_a_missing_url_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="NOTIFIER_DATABASE_URL is not set"):
        load_settings().require("database_url")


def test_a_service_that_runs_here_is_found_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "running.env"
    file.write_text("NOTIFIER_BROKER_URL='redis://:a$b@127.0.0.1:1/0'\n")
    file.chmod(0o666)
    assert load_settings().broker_url is None, "anybody may have written it"
    file.chmod(0o600)
    assert load_settings().require("broker_url") == "redis://:a$b@127.0.0.1:1/0"
    assert load_settings(use_running=False).broker_url is None
    monkeypatch.setenv("NOTIFIER_BROKER_URL", "amqp://mine/")
    assert load_settings().require("broker_url") == "amqp://mine/"


def test_a_call_must_end_well_within_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_LEASE_SECONDS", "40")
    with pytest.raises(ConfigurationError, match=r"NOTIFIER_CALL_DEADLINE_SECONDS.*15 s below"):
        load_settings()
    monkeypatch.setenv("NOTIFIER_CALL_DEADLINE_SECONDS", "20")
    assert load_settings().lease_seconds == 40


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("providers = 5", "providers"),
        ("colour = 'red'", "colour"),
        ("[[providers]]\nname = 'A B'\nkind = 'smtp'", "providers.0.name"),
        ("[[providers]]\nname = 'a'\nkind = 'x'\n[[providers]]\nname = 'a'\nkind = 'y'", "same name"),
        ("[retry.normal]\nfirst_seconds = 0", "retry.normal.first_seconds"),
        ("[senders.a]\nfax = '1'", "senders.a.fax"),
        ("x = ", "not valid TOML"),
    ],
)
def test_a_wrong_line_of_the_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "notifier.toml"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=words):
        load_structure(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="NOTIFIER_CONFIG"):
        load_structure(tmp_path / "nowhere.toml")


def test_providers_come_in_the_order_of_the_file_with_their_references(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "notifier.toml").write_text(
        '[[providers]]\nname = "b"\nkind = "smtp"\nurl = "${RELAY_B}"\n'
        '[[providers]]\nname = "a"\nkind = "smtp"\nurl = "smtp://a"\nmax_connections = 5\n'
    )
    monkeypatch.setenv("RELAY_B", "smtp://user:pw@b")
    settings = load_settings()
    tables = settings.provider_tables()
    assert [table.name for table in tables] == ["b", "a"]
    assert settings.provider_options(tables[0]) == {"url": "smtp://user:pw@b"}
    assert settings.provider_options(tables[1]) == {"url": "smtp://a", "max_connections": "5"}
    monkeypatch.delenv("RELAY_B")
    with pytest.raises(ConfigurationError, match="RELAY_B"):
        settings.provider_options(tables[0])


def test_the_environment_alone_makes_one_provider_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_SMTP_URL", "smtp://relay")
    monkeypatch.setenv("NOTIFIER_TWILIO_ACCOUNT_SID", "AC1")
    monkeypatch.setenv("NOTIFIER_TWILIO_AUTH_TOKEN", "t")
    monkeypatch.setenv("NOTIFIER_TWILIO_API_BASE", "http://local")
    settings = load_settings()
    assert [table.name for table in settings.provider_tables()] == ["smtp", "twilio"]
    assert settings.provider_options(settings.provider_tables()[1])["api_base"] == "http://local"


def test_an_identity_is_completed_from_the_default_and_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "notifier.toml").write_text(
        'default_sender = "shop"\n[senders.shop]\nemail = "shop@example.com"\n[senders.code]\nsms = "CODES"\n'
    )
    monkeypatch.setenv("NOTIFIER_TWILIO_FROM", "+15550100100")
    settings = load_settings()
    assert settings.sender("code").email == "shop@example.com"
    assert settings.sender("code").sms == "CODES"
    assert settings.sender(None).sms == "+15550100100"
    assert settings.sender("only-in-production") == settings.sender(None)


def test_a_lane_keeps_its_default_policy_until_the_file_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "notifier.toml").write_text(
        "[retry.bulk]\nfirst_seconds = 1\nmax_seconds = 2\ndeadline_seconds = 3\nmax_attempts = 4\n"
    )
    settings = load_settings()
    assert settings.retry(Lane.BULK).max_attempts == 4
    assert settings.retry(Lane.URGENT).deadline_seconds == 600


def test_an_encryption_key_that_is_none_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_ENCRYPTION_KEYS", "one:c2VjcmV0")
    with pytest.raises(
        ConfigurationError, match=r"NOTIFIER_ENCRYPTION_KEYS: .*the key one is not 32 bytes"
    ) as raised:
        load_settings(use_running=False)
    assert "c2VjcmV0" not in str(raised.value)


def test_what_is_dropped_sooner_than_redacted_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notifier.toml"
    path.write_text("[retention.sms]\nredact_after_days = 30\ndrop_after_days = 7\n")
    with pytest.raises(ConfigurationError, match=r"retention.sms: .*drop_after_days is less"):
        load_structure(path)


def test_what_notifier_toml_refers_to_may_be_a_file_of_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFIER_SECRETS_DIR", str(tmp_path))
    path = tmp_path / "notifier.toml"
    path.write_text('[[providers]]\nname = "relay"\nkind = "smtp"\nurl = "${RELAY_URL}"')
    (table,) = load_structure(path).providers
    with pytest.raises(ConfigurationError, match=r"RELAY_URL.*not set.*add a file of this name"):
        assert table.options
    secret = tmp_path / "RELAY_URL"
    secret.write_text("smtp://relay.example.com\n")
    assert table.options == {"url": "smtp://relay.example.com"}
    monkeypatch.setenv("RELAY_URL", "smtp://other.example.com")
    assert table.options == {"url": "smtp://other.example.com"}
    monkeypatch.delenv("RELAY_URL")
    secret.write_bytes(b"hunter2\xff")
    with pytest.raises(ConfigurationError, match="RELAY_URL cannot be read") as caught:
        assert table.options
    assert "hunter2" not in str(caught.value)
