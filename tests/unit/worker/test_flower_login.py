"""Which logins `notifier flower` starts with. Flower itself does not start here."""

from __future__ import annotations

import pytest

from notifier.config.settings import Settings
from notifier.domain.errors import ConfigurationError
from notifier.worker import flower
from notifier.worker.flower import LOGIN, run_flower

pytest.importorskip("flower")


@pytest.mark.parametrize(
    ("login", "host", "problem"),
    [
        ("op:a,b", "127.0.0.1", "has a comma"),
        ("operator:pässwort", "127.0.0.1", "other characters than ASCII"),
        ("operator:", "127.0.0.1", "lacks a user or a password"),
        ("operator", "127.0.0.1", "lacks a user or a password"),
        ("", "0.0.0.0", "is not set"),
    ],
)
def test_a_login_that_would_not_be_the_one_meant_is_refused(
    monkeypatch: pytest.MonkeyPatch, login: str, host: str, problem: str
) -> None:
    monkeypatch.setenv(LOGIN, login)
    monkeypatch.setattr(flower, "make_app", lambda _settings: pytest.fail("it started"))
    with pytest.raises(ConfigurationError, match=problem) as refused:
        run_flower(Settings(), host, 5555, announce=pytest.fail)
    assert "a,b" not in str(refused.value)
    assert "pässwort" not in str(refused.value)


def test_an_empty_login_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Started(Exception):
        pass

    def start(_settings: Settings) -> None:
        raise Started

    monkeypatch.setenv(LOGIN, "")
    monkeypatch.setattr(flower, "make_app", start)
    said: list[str] = []
    with pytest.raises(Started):
        run_flower(Settings(), "127.0.0.1", 5555, announce=said.append)
    assert said[0].startswith("login for this run: operator, password ")
