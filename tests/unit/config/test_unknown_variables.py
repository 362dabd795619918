"""Misspelt settings are named; variables that somebody else sets or reads are not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from notifier.config.logs import configure
from notifier.config.settings import load_settings
from notifier.config.structure import Structure
from notifier.config.unknown_variables import unknown_variables, warn_of_unknown_variables

NO_GUESS = " is set, and nothing reads it: docs/reference/settings.md has the names"

pytestmark = pytest.mark.usefixtures("restored_logging")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable but those of the test, and no notifier.toml of the checkout."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("NOTIFIER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NOTIFIER_DATA_DIR", str(tmp_path))


def test_a_misspelt_variable_is_named_with_what_may_be_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTIFIER_WORKER_THREAD", "hunter2")
    monkeypatch.setenv("NOTIFIER_SHOE_SIZE", "hunter2")
    expected = [
        "NOTIFIER_SHOE_SIZE is set, and nothing reads it: docs/reference/settings.md has the names",
        "NOTIFIER_WORKER_THREAD is set, and nothing reads it: did you mean NOTIFIER_WORKER_THREADS?",
    ]
    assert unknown_variables(load_settings()) == expected
    configure(style="json", program="intake")
    warn_of_unknown_variables(load_settings())
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("settings.unknown_variable", problem) for problem in expected
    ]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("NOTIFIER_DB_URL", "NOTIFIER_DB_URL is set, and nothing reads it: did you mean NOTIFIER_DATABASE_URL?"),
        # All names have the prefix, so it makes none of them alike.
        ("NOTIFIER_EMPTY", f"NOTIFIER_EMPTY{NO_GUESS}"),
        ("NOTIFIER_A\nB: \x1b", rf"NOTIFIER_A\nB: \x1b{NO_GUESS}"),
        (f"NOTIFIER_{'X' * 3000}", f"NOTIFIER_{'X' * 71}…{NO_GUESS}"),
    ],
)
def test_any_name_is_one_short_line(monkeypatch: pytest.MonkeyPatch, name: str, problem: str) -> None:
    monkeypatch.setenv(name, "hunter2")
    assert unknown_variables(load_settings()) == [problem]


@pytest.mark.parametrize("value", ["x", '{"sms_prefixes": ["+33"]}'])
def test_a_field_that_is_no_variable_is_named_as_any_other(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("NOTIFIER_STRUCTURE", value)
    settings = load_settings()
    assert settings.structure == Structure()
    (problem,) = unknown_variables(settings)
    assert problem.startswith("NOTIFIER_STRUCTURE is set, and nothing reads it")


def test_what_is_read_is_not_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "notifier.toml").write_text(
        '[[providers]]\nname = "a"\nkind = "smtp"\nurl = "${NOTIFIER_RELAY_A}"\n'
    )
    for name in (
        "NOTIFIER_RELAY_A",
        "NOTIFIER_OUTBOX_URL",
        "NOTIFIER_TEST_PATIENCE",
        "NOTIFIER_INTAKE_SERVICE_HOST",
        "NOTIFIER_INTAKE_SERVICE_PORT_HTTP",
        "NOTIFIER_INTAKE_PORT",
        "NOTIFIER_INTAKE_PORT_8080_TCP_ADDR",
        "XNOTIFIER_WORKER_THREAD",
    ):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("NOTIFIER_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("notifier_log_level", "error")
    assert unknown_variables(load_settings()) == []
    monkeypatch.setenv("NOTIFIER_OTHER_PORT", "1")
    assert len(unknown_variables(load_settings())) == 1


def test_a_misspelt_file_of_a_secret_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("NOTIFIER_SECRETS_DIR", str(folder))
    (tmp_path / "notifier.toml").write_text(
        '[[providers]]\nname = "a"\nkind = "smtp"\nurl = "${NOTIFIER_RELAY_A}"\n'
    )
    read = ("NOTIFIER_RELAY_A", "notifier_broker_url", "somebody_elses")
    for name in (*read, "NOTIFIER_HASHKEY", "notifier_shoe_size"):
        (folder / name).write_text("hunter2")
    where = f"is in the secrets folder {folder}, and nothing reads it:"
    assert unknown_variables(load_settings()) == [
        f"NOTIFIER_HASHKEY {where} did you mean NOTIFIER_HASH_KEY?",
        f"notifier_shoe_size {where} docs/reference/settings.md has the names",
    ]
