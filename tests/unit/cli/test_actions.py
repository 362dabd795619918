"""How every action of an operator is carried out and reported."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import typer

from notifier.cli.actions import ActionEnding, SelectionEnding, operator, run_action
from notifier.cli.options import ActionOptions
from notifier.domain.errors import ServiceUnavailable
from notifier.operations import ActionResult, Skipped

RECORD = UUID(int=1)


@dataclass
class Found:
    record_id: UUID | None
    changed: int = 3


class Performed:
    """An action that keeps what it was called with."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[dict[str, Any]] = []
        self.error = error

    def __call__(self, **how: Any) -> Found:
        self.calls.append(how)
        if self.error:
            raise self.error
        return Found(None if how.get("dry_run") else RECORD)


ENDING: ActionEnding[Found] = ActionEnding("wash", "washed", "dry them")


def test_a_dry_run_only_looks(capsys: pytest.CaptureFixture[str]) -> None:
    act = Performed()
    run_action(act, ENDING, ActionOptions(dry_run=True))
    [call] = act.calls
    assert call.keys() == {"operator", "dry_run"}
    assert capsys.readouterr().out == "3 would be washed\n"


def test_an_action_is_told_with_its_record_and_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    act = Performed()
    run_action(act, ENDING, ActionOptions(why="dirty"))
    [call] = act.calls
    assert call["reason"] == "dirty"
    printed = capsys.readouterr()
    assert printed.out == "3 washed\n"
    assert printed.err == f"operator record {RECORD}\nnext: dry them\n"


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run_action(Performed(), ENDING, ActionOptions(as_json=True))
    printed = capsys.readouterr()
    assert '"changed": 3' in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ServiceUnavailable("away")])
def test_an_interrupted_action_says_how_to_go_on(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)):
        run_action(Performed(error), ENDING, ActionOptions())
    assert "Run it again to go on" in capsys.readouterr().err


def test_one_that_was_named_and_skipped_makes_it_fail(capsys: pytest.CaptureFixture[str]) -> None:
    result = ActionResult(RECORD, 3, 1, 1, (Skipped("b", "is sent"),))
    with pytest.raises(typer.Exit):
        SelectionEnding("retry", "retried").report(result, as_json=False)
    printed = capsys.readouterr()
    assert printed.out == "1 retried, 1 skipped because of their expires_at, 1 left alone\n"
    assert "b  is sent" in printed.err


def test_an_operator_is_the_account_of_the_process_and_not_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LOGNAME", "USER", "SUDO_USER"):
        monkeypatch.setenv(name, "alice (OIDC)")
    assert operator() == pwd.getpwuid(os.getuid()).pw_name
    # Of an account that there is, but only root comes from sudo.
    monkeypatch.setenv("SUDO_USER", "daemon")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert operator() == "root (sudo: daemon)"
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert operator() == "uid 4000000000"
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="alice (OIDC)"))
    assert operator() == "uid 4000000000"
